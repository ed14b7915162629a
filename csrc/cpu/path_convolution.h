#pragma once

#include <stdint.h>

#include "isas.h"

// Path convolution in float32. 3×3 kernels with stride 1 use Winograd's F(4×4, 3×3), as do larger
// ones cut into squares of 3×3 taps, the last padded with zeros; all others are computed directly.
// Everything is dense and channels-last, except that pixels of an image may lie further apart than
// their channels: images [points, samples, height, width, channels], weights [squares, outputs, 3,
// 3, inputs], which `pack` reorders, or as `Kind` says. All functions are compiled once per
// instruction set.

namespace faigfast {

// act(z): z, or z where it is positive and slope · z elsewhere. factor: in backward alone; an array
// of factors takes the place of act′(z).
enum class Activation { none, relu, leaky, factor };

// The layout of a layer's packed weights.
struct Packing {
    int64_t inputs, outputs, shuffle;  // as in PathConvolution
    bool input_gradient;               // packed for the input gradient, else for the forward
    int64_t squares;
};

// squares: 3×3 squares of taps. point: 1×1 without padding. depthwise: one kernel per channel, with
// weights [taps, channels]. direct: any other, with weights [taps, outputs, inputs / groups], or
// [taps, inputs, outputs / groups] where the convolution is transposed.
enum class Kind { squares, point, depthwise, direct };

// `down` by `across` squares, or taps; the first lies pad_y rows above and pad_x columns left of
// the pixel of y. Stride, dilation, groups and `transposed` matter to the kind `direct` alone.
struct Kernel {
    Kind kind;
    int64_t down, across, pad_y, pad_x;
    int64_t stride_y, stride_x, dilation_y, dilation_x, groups;
    bool transposed;

    int64_t squares() const { return down * across; }
    int64_t taps() const { return (kind == Kind::squares ? 9 : 1) * down * across; }
    // Rows, and columns, from a pixel of y to the middle of a square.
    int64_t row_offset(int64_t square) const { return square / across * 3 + 1 - pad_y; }
    int64_t column_offset(int64_t square) const { return square % across * 3 + 1 - pad_x; }
};

struct PathConvolution {
    int64_t points, samples, height, width, inputs, outputs;
    int64_t x_height, x_width;
    Kernel kernel;
    int64_t shuffle;       // y is [shuffle·height, shuffle·width, outputs / shuffle²]; 1: none
    const float* alpha;    // [points]
    const float *w0, *dw;  // packed where packed_size is not 0; γ(α) = w0 + α·dw. dw may be null,
                           // as db and ds
    const float *b0, *db;  // [outputs] or null
    const float *s0, *ds;  // slopes [outputs], or one where shared_slope; null: all are `slope`
    bool shared_slope;
    Activation activation;
    float slope;
    float scale;  // y = scale · act(conv(x)) + residual
    bool bf16;    // gradients of bf16_gradients.h, with weights that are not packed
    int threads;

    // Whether this is a 3×3 convolution with "same" padding.
    bool is_same_3x3() const {
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
    int64_t x_point;        // floats between points; 0 where all points share x
    int64_t x_pixel;        // floats between pixels; 0: dense
    const float* residual;  // as y, or null
    int64_t residual_point;
    float* y;
};

struct BackwardArrays {
    // As y; saved: the activation's input or output, its factors, or null.
    const float *gy, *saved;
    const float* x;
    int64_t x_point, x_pixel;
    int64_t images;      // samples = images · rest
    const float* more;   // as gx, a gradient to add to it, or null
    int64_t more_pixel;  // floats between its pixels; 0: dense
    // The activation whose output x is: gx is then ∂L/∂z, where x = act(z); none: gx is ∂L/∂x.
    Activation before;
    float before_slope;
    const float* before_factors;  // as gx, of the activation `factor`
    float* gx;  // [points, samples, x_height, x_width, inputs], or null where not wanted
    float* gw;  // [images, squares, outputs, inputs, 3, 3]; [images, outputs, inputs] for a point,
                // [images, channels, taps] for depthwise, else as w0; summed over points, or null
    float* gb;  // [images, outputs] or null
    float* gs;  // [images, outputs] or null: of every slope, also of a shared one
};

// What every thread calls once. Not std::function, whose code is shared by all instruction sets.
struct ThreadWork {
    const void* work;
    void (*call)(const void*);

    // `work` must outlive this.
    template <typename Work>
    static ThreadWork of(const Work& work) {
        return {&work, [](const void* work) { (*static_cast<const Work*>(work))(); }};
    }
    void operator()() const { call(work); }
};

#define FAIGFAST_DECLARE(isa)                                                                 \
    namespace isa {                                                                           \
    int64_t packed_size(const Packing&);                                                      \
    void pack(const Packing&, const float* w, float* packed, int threads);                    \
    void convolve(const PathConvolution&, const ForwardArrays&);                              \
    void convolve_backward(const PathConvolution&, const BackwardArrays&);                    \
    void convolve_weight_gradient(const PathConvolution&, const BackwardArrays&, ThreadWork); \
    int64_t multiply_add(int64_t rounds, int threads, float* result);                         \
    }
FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE

}  // namespace faigfast
