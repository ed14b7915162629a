#pragma once

// Reading images, and gradients through the activation after which they were taken.

#include "channels.h"
#include "winograd.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// What is done to a gradient when it is read.
enum class Gate { open, scaled, relu, leaky };

inline Gate gate_of(const PathConvolution& p) {
    if (p.activation == Activation::relu) return Gate::relu;
    if (p.activation == Activation::leaky) return Gate::leaky;
    return p.scale == 1 ? Gate::open : Gate::scaled;
}

// A gradient at an activation's input, from that at its output.
template <Gate kGate>
inline Vec through(Vec gradient, Vec saved, float scale, Vec slope) {
    if (kGate == Gate::open) return gradient;
    gradient *= scale;
    if (kGate == Gate::scaled) return gradient;
    if (kGate == Gate::relu) return where(saved > 0, gradient);
    return saved > 0 ? gradient : gradient * slope;
}

template <Gate kGate>
struct GateConstant {
    static constexpr Gate value = kGate;
};

// Calls f with a gate as a constant.
template <typename F>
inline void with_gate(Gate gate, F f) {
    switch (gate) {
        case Gate::open:
            return f(GateConstant<Gate::open>{});
        case Gate::scaled:
            return f(GateConstant<Gate::scaled>{});
        case Gate::relu:
            return f(GateConstant<Gate::relu>{});
        case Gate::leaky:
            return f(GateConstant<Gate::leaky>{});
    }
}

inline Vec read(const float* from, int lanes) {
    return lanes == kLanes ? load(from) : load(from, lanes);
}

// Slopes [points, padded], in columns.
inline void fill_slopes(const PathConvolution& p, const Channels& channels, float* slopes) {
    for (int64_t point = 0; point < p.points; ++point)
        for (int64_t j = 0; j < channels.padded; ++j) {
            const int64_t o = p.shared_slope ? 0 : channels.channel(j);
            float value = p.activation == Activation::leaky ? p.slope : 0;
            if (p.s0 && o >= 0) value = p.s0[o] + (p.ds ? p.alpha[point] * p.ds[o] : 0);
            slopes[point * channels.padded + j] = value;
        }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
