#pragma once

#include <cstdint>
#include <string>

// The interface of the CUDA kernels, for callers that know neither CUDA nor torch. Addresses are in
// device memory; everything runs on `where.stream` of `where.device`. Each function throws
// std::runtime_error, which names the kernel, where a launch fails.

namespace faigfast::cuda {

enum class Type { fp16, bf16, fp32, fp64 };

// act(z): z, or z where it is positive and slope · z elsewhere.
enum class Activation { none, relu, leaky };

struct Where {
    int device;
    void* stream;
};

// γ(α) = w0 + α·dw at every point, dense as [points, outputs, taps, inputs].
struct PathWeights {
    Type from, to;  // of w0 and dw; of gamma
    int64_t points, outputs, inputs, taps;
    int64_t output_stride, input_stride, tap_stride;  // in elements, of w0 and of dw
    const float* alpha;                               // [points]
    const void *w0, *dw;                              // dw may be null
    void* gamma;
};

// scores [images, outputs · inputs] = Σ over taps of |delta · total|, in fp32 or fp64.
struct ScoreReduction {
    Type type;
    int64_t images, outputs, inputs, taps;
    bool taps_last;  // both dense as […, outputs, inputs, taps], else as […, outputs, taps, inputs]
    const void *total, *delta;
    void* scores;
};

// gy = 2·weights·(y − gt), the gradient of squared errors; y and gy [points, images, size].
struct LossGradient {
    Type type, gt_type;  // of y and gy; of gt, which may be fp32 where y has 16 bits
    int64_t points, images, size;
    const void *y, *gt;    // gt [images, size]
    const float* weights;  // [points, images], the gradient at each loss
    void* gy;
};

// g = scale · act'(…) · gy at the convolution's result, and its sums over points and pixels.
struct MaskGradient {
    Type type;
    int64_t points, images, samples;  // samples of each image
    int64_t height, width, channels;  // of the convolution's result
    int64_t shuffle;  // gy is [shuffle·height, shuffle·width, channels / shuffle²]; 1: none
    Activation activation;
    const void *gy, *saved;  // saved: the activation's input or output, null without one
    const float* slopes;     // [points, channels], or null: all are `slope`
    float slope, scale;
    void* g;      // [points, images·samples, height, width, channels], or null where not wanted
    float* gb;    // [images, channels] or null
    float* gs;    // [images, channels] or null
    float* room;  // mask_gradient_room() floats of scratch
};

// y = scale · act(convolution of x with γ + bias) + residual: 64 channels to 64, 3×3, padding 1.
struct Convolution64 {
    Type type;  // fp16 or bf16
    int64_t points, samples, height, width;
    bool shared;  // x has one point, which serves all
    bool residual_shared;
    const void* x;         // [points or 1, samples, height, width, 64]
    const void* gamma;     // [points, 64, 9, 64]
    const float* bias;     // [points, 64] or null
    const void* residual;  // as y, of one point where residual_shared, or null
    void* y;               // [points, samples, height, width, 64]
    Activation activation;
    float slope, scale;
};

void path_weights(const Where& where, const PathWeights& given);
void score_reduction(const Where& where, const ScoreReduction& given);
void loss_gradient(const Where& where, const LossGradient& given);
void mask_gradient(const Where& where, const MaskGradient& given);
int64_t mask_gradient_room(const MaskGradient& given);
void convolution64(const Where& where, const Convolution64& given);

// CUDA versions that the driver serves and that this was built with: 13000 is 13.0, 0 is none.
int driver_version();
int runtime_version();

}  // namespace faigfast::cuda
