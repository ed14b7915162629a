#pragma once

#include <cstdint>
#include <string>

// The interface of the CUDA kernels, for callers that know neither CUDA nor torch. Addresses are in
// device memory; everything runs on `where.stream` of `where.device`. Each function throws
// std::runtime_error, which names the kernel, where a launch fails.

namespace faigfast::cuda {

enum class Type { fp16, bf16 };

// act(z): z, or z where it is positive and slope · z elsewhere.
enum class Activation { none, relu, leaky };

struct Where {
    int device;
    void* stream;
};

// y = scale · act(convolution of x with γ + bias) + residual: 64 channels to 64, 3×3, padding 1.
struct Convolution64 {
    Type type;
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

void convolution64(const Where& where, const Convolution64& given);

// CUDA versions that the driver serves and that this was built with: 13000 is 13.0, 0 is none.
int driver_version();
int runtime_version();

}  // namespace faigfast::cuda
