#pragma once

// Gradients through an activation: the mask that turns a gradient at the activation's output into
// the gradient at its input, and a reader of images that applies it.

#include "../path_convolution.h"
#include "channels.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// The factor of a gradient: 1, the layer's scale, or the scale times the activation's derivative,
// which `factor` reads from memory.
enum class GradientMask { none, scaled, relu, leaky, factor };

inline GradientMask mask_of(const PathConvolution& p) {
    if (p.activation == Activation::relu) return GradientMask::relu;
    if (p.activation == Activation::leaky) return GradientMask::leaky;
    if (p.activation == Activation::factor) return GradientMask::factor;
    return p.scale == 1 ? GradientMask::none : GradientMask::scaled;
}

// The gradient at an activation's input, from the gradient at its output. `saved` is the
// activation's input or output, which agree in sign, or its factors.
template <GradientMask kMask>
inline Vec masked(Vec gradient, Vec saved, float scale, Vec slope) {
    if (kMask == GradientMask::none) return gradient;
    gradient *= scale;
    if (kMask == GradientMask::scaled) return gradient;
    if (kMask == GradientMask::relu) return where(saved > 0, gradient);
    if (kMask == GradientMask::factor) return gradient * saved;
    return saved > 0 ? gradient : gradient * slope;
}

template <GradientMask kMask>
struct MaskConstant {
    static constexpr GradientMask value = kMask;
};

// Calls f with the mask as a compile-time constant.
template <typename F>
inline void with_mask(GradientMask mask, F f) {
    switch (mask) {
        case GradientMask::none:
            return f(MaskConstant<GradientMask::none>{});
        case GradientMask::scaled:
            return f(MaskConstant<GradientMask::scaled>{});
        case GradientMask::relu:
            return f(MaskConstant<GradientMask::relu>{});
        case GradientMask::leaky:
            return f(MaskConstant<GradientMask::leaky>{});
        case GradientMask::factor:
            return f(MaskConstant<GradientMask::factor>{});
    }
}

inline Vec read(const float* from, int lanes) {
    return lanes == kLanes ? load(from) : load(from, lanes);
}

// Reads pixels of an image, or of a gradient through its mask, into padded columns. `at` is the
// offset of the first pixel from `values`, and from `saved`.
struct PixelReader {
    GradientMask mask;
    const Channels& channels;
    const float *values, *saved;
    float scale;
    const float* slopes;  // [padded], of one point

    // Writes [count, to_pixel]; lanes after the last channel are zero.
    void read_to(int64_t at, int64_t count, float* to, int64_t to_pixel) const {
        with_mask(mask, [&](auto mask) { read_as<mask.value>(at, count, to, to_pixel); });
    }

    // Adds the gradients of slopes [padded]: Σ of scale · gy · z over pixels where z ≤ 0.
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

    template <GradientMask kMask>
    void read_as(int64_t at, int64_t count, float* to, int64_t to_pixel) const {
        for (int64_t i = 0; i < count; ++i, at += channels.pixel(), to += to_pixel)
            channels.each_vector([&](int64_t v, int64_t offset, int lanes) {
                const float* from = values + at + offset;
                const Vec z =
                    kMask >= GradientMask::relu ? read(saved + at + offset, lanes) : Vec{};
                const Vec slope = kMask == GradientMask::leaky ? load(slopes + v * kLanes) : Vec{};
                const Vec value = masked<kMask>(read(from, lanes), z, scale, slope);
                const int64_t room = to_pixel - v * kLanes;
                if (room >= kLanes)
                    store(to + v * kLanes, value);
                else
                    store(to + v * kLanes, value, (int)room);
            });
    }
};

// Slopes [points, padded], in the order of columns.
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
