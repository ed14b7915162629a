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

// One vector of channels around one pixel.
struct Pixels {
    const float *values, *saved;
    int64_t row, pixel;
    int lanes;
    Vec positive, negative;  // factors where saved is positive, and where it is not
};

template <Gate kGate, bool kWhole>
inline Vec read(const Pixels& p, int64_t r, int64_t c) {
    const int64_t at = r * p.row + c * p.pixel;
    const Vec value = kWhole ? load(p.values + at) : load(p.values + at, p.lanes);
    if (kGate == Gate::open) return value;
    if (kGate == Gate::scaled) return value * p.positive;
    const Vec saved = kWhole ? load(p.saved + at) : load(p.saved + at, p.lanes);
    if (kGate == Gate::relu) return where(saved > 0, value * p.positive);
    return saved > 0 ? value * p.positive : value * p.negative;
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
