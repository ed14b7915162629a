#pragma once

// Reading images, and gradients through the activation after which they were taken.

#include "channels.h"
#include "path_convolution.h"

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

// What a gradient is read through at some pixels in a row; `at`: where the first one stands.
struct GatedRow {
    Gate gate;
    const Channels& channels;
    const float *values, *saved;
    float scale;
    const float* slopes;  // of the point

    // [count, to_pixel] from pixel `at`; lanes behind the channels are zero.
    void read_to(int64_t at, int64_t count, float* to, int64_t to_pixel) const {
        with_gate(gate, [&](auto gate) { read_as<gate.value>(at, count, to, to_pixel); });
    }

    // Gradients of slopes [padded], which meet z where it is not positive.
    void add_slopes(int64_t at, int64_t count, float* sums) const {
        channels.each_vector([&](int64_t v, int64_t offset, int lanes) {
            Vec sum = {};
            for (int64_t i = 0; i < count; ++i) {
                const int64_t here = at + i * channels.pixel() + offset;
                const Vec z = read(saved + here, lanes);
                sum += z > 0 ? Vec{} : scale * read(values + here, lanes) * z;
            }
            store(sums + v * kLanes, load(sums + v * kLanes) + sum);
        });
    }

    template <Gate kGate>
    void read_as(int64_t at, int64_t count, float* to, int64_t to_pixel) const {
        for (int64_t i = 0; i < count; ++i, at += channels.pixel(), to += to_pixel)
            channels.each_vector([&](int64_t v, int64_t offset, int lanes) {
                const float* from = values + at + offset;
                const Vec z = kGate >= Gate::relu ? read(saved + at + offset, lanes) : Vec{};
                const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                const Vec value = through<kGate>(read(from, lanes), z, scale, slope);
                const int64_t room = to_pixel - v * kLanes;
                if (room >= kLanes)
                    store(to + v * kLanes, value);
                else
                    store(to + v * kLanes, value, (int)room);
            });
    }
};

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
