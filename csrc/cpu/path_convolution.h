#pragma once

#include <stdint.h>

#include "isas.h"

// Path convolution in float32. Kernels of 3×3, and larger ones that are made of squares of 3×3 taps
// side by side, the last filled up with zeros, go by Winograd's F(4×4, 3×3); 1×1, depthwise and any
// other ones directly. Everything is dense and channels-last, but that pixels may lie further
// apart: images [points, samples, height, width, channels], weights [squares, outputs, 3, 3,
// inputs], which `pack` lays out anew, or as `Kind` says. All functions are compiled once per
// instruction set.

namespace faigfast {

// act(z): z, or z where it is positive and slope · z elsewhere.
enum class Activation { none, relu, leaky };

// Weights of a layer, and for which of its convolutions they are laid out.
struct Packing {
    int64_t inputs, outputs, shuffle;  // as in PathConvolution
    bool turned;                       // for the input gradient
    int64_t squares;
};

// Squares of taps; a single one, without padding; of every channel its own, with weights [taps,
// channels]; any other, with weights [taps, outputs, inputs / groups], or of a transposed
// convolution [taps, inputs, outputs / groups].
enum class Kind { squares, point, depthwise, direct };

// Where squares, or taps, stand on an image: `down` by `across` of them, the first above and left
// of a pixel of y by as much as the padding says. What follows is of the kind `direct` alone.
struct Kernel {
    Kind kind;
    int64_t down, across, pad_y, pad_x;
    int64_t stride_y, stride_x, dilation_y, dilation_x, groups;
    bool transposed;

    int64_t squares() const { return down * across; }
    int64_t taps() const { return (kind == Kind::squares ? 9 : 1) * down * across; }
    // How far the middle of a square lies from a pixel of y.
    int64_t below(int64_t square) const { return square / across * 3 + 1 - pad_y; }
    int64_t beside(int64_t square) const { return square % across * 3 + 1 - pad_x; }
};

struct PathConvolution {
    int64_t points, samples, height, width, inputs, outputs;
    int64_t x_height, x_width;
    Kernel kernel;
    int64_t shuffle;       // y is [shuffle·height, shuffle·width, outputs / shuffle²]; 1: as it is
    const float* alpha;    // [points]
    const float *w0, *dw;  // of squares packed, where packed_size is not 0; γ(α) = w0 + α·dw; dw
                           // may be null, as every d… below
    const float *b0, *db;  // [outputs] or null
    const float *s0, *ds;  // slopes [outputs], or one where shared_slope; null: `slope`
    bool shared_slope;
    Activation activation;
    float slope;
    float scale;  // y = scale · act(conv(x)) + residual
    int threads;

    // Whether it is a 3×3 that leaves the size as it is.
    bool is_middle() const {
        return kernel.kind == Kind::squares && kernel.squares() == 1 && kernel.pad_y == 1 &&
               kernel.pad_x == 1 && x_height == height && x_width == width;
    }
    int64_t weights() const {
        if (kernel.kind == Kind::depthwise) return outputs * kernel.taps();
        const int64_t groups = kernel.kind == Kind::direct ? kernel.groups : 1;
        return outputs * inputs / groups * kernel.taps();
    }
};

struct ForwardArrays {
    const float* x;
    int64_t x_point;        // floats between points; 0 where all share x
    int64_t x_pixel;        // and between pixels; 0: no more than channels
    const float* residual;  // as y, or null
    int64_t residual_point;
    float* y;
};

struct BackwardArrays {
    const float *gy, *saved;  // as y; saved: the activation's input or output, null without one
    const float* x;
    int64_t x_point, x_pixel;
    int64_t images;      // samples = images · rest
    const float* more;   // as gx, to which it is added, or null
    int64_t more_pixel;  // floats between its pixels; 0: no more than channels
    // x = act(z) of the layer before, and gx is to be ∂L/∂z; none: ∂L/∂x.
    Activation before;
    float before_slope;
    float* gx;  // [points, samples, x_height, x_width, inputs], or null: not wanted
    float* gw;  // [images, squares, outputs, inputs, 3, 3]; [images, outputs, inputs] of a point,
                // [images, channels, taps] of depthwise, of others as w0; summed over the points,
                // or null
    float* gb;  // [images, outputs] or null
    float* gs;  // [images, outputs] or null, of slopes, also where one is shared
};

#define FAIGFAST_DECLARE(isa)                                                     \
    namespace isa {                                                               \
    int64_t packed_size(const Packing&);                                          \
    void pack(const Packing&, const float* w, float* packed, int threads);        \
    void convolve(const PathConvolution&, const ForwardArrays&);                  \
    void convolve_input_gradient(const PathConvolution&, const BackwardArrays&);  \
    void convolve_weight_gradient(const PathConvolution&, const BackwardArrays&); \
    int64_t multiply_add(int64_t rounds, int threads, float* result);             \
    }
FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE

}  // namespace faigfast
