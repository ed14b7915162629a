// γ(α) = w0 + α·dw at all points, cast and laid out as [points, outputs, taps, inputs]. Each weight
// is read once, whatever the number of points.

#include "launch.h"
#include "values.cuh"

namespace faigfast::cuda {
namespace {

constexpr int kThreads = 256;

template <typename From, typename To>
__global__ __launch_bounds__(kThreads) void path_weights_kernel(PathWeights given) {
    const From* w0 = static_cast<const From*>(given.w0);
    const From* dw = static_cast<const From*>(given.dw);
    To* gamma = static_cast<To*>(given.gamma);
    const int64_t size = given.outputs * given.taps * given.inputs;
    for (int64_t i = blockIdx.x * (int64_t)kThreads + threadIdx.x; i < size;
         i += gridDim.x * (int64_t)kThreads) {
        const int64_t input = i % given.inputs, rest = i / given.inputs;
        const int64_t at = rest / given.taps * given.output_stride +
                           rest % given.taps * given.tap_stride + input * given.input_stride;
        const float start = to_float(w0[at]), change = dw ? to_float(dw[at]) : 0.0f;
        // Without dw the value is w0 itself, also where it is not finite.
        for (int64_t p = 0; p < given.points; ++p)
            gamma[p * size + i] = from_float<To>(dw ? fmaf(given.alpha[p], change, start) : start);
    }
}

template <typename From, typename To>
void launch(cudaStream_t stream, const PathWeights& given) {
    const int64_t size = given.outputs * given.taps * given.inputs;
    run_kernel("path_weights", path_weights_kernel<From, To>, blocks_for(size, kThreads), kThreads,
               0, stream, given);
}

template <typename From>
void launch_from(cudaStream_t stream, const PathWeights& given) {
    switch (given.to) {
        case Type::fp16:
            return launch<From, __half>(stream, given);
        case Type::bf16:
            return launch<From, __nv_bfloat16>(stream, given);
        case Type::fp32:
            return launch<From, float>(stream, given);
        default:
            throw std::runtime_error("path_weights writes fp16, bf16 or fp32");
    }
}

}  // namespace

void path_weights(const Where& where, const PathWeights& given) {
    const cudaStream_t stream = stream_on(where, "path_weights");
    if (given.points * given.outputs * given.inputs * given.taps == 0) return;
    switch (given.from) {
        case Type::fp16:
            launch_from<__half>(stream, given);
            break;
        case Type::bf16:
            launch_from<__nv_bfloat16>(stream, given);
            break;
        case Type::fp32:
            launch_from<float>(stream, given);
            break;
        default:
            throw std::runtime_error("path_weights reads fp16, bf16 or fp32");
    }
}

}  // namespace faigfast::cuda
