// gy = 2·w·(y − gt): the gradient of an image's squared error, scaled by the weight of the node, in
// one pass over y.

#include "launch.h"
#include "values.cuh"

namespace faigfast::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, typename G, int kCount>
__global__ __launch_bounds__(kThreads) void loss_gradient_kernel(LossGradient given) {
    const int64_t rows = given.points * given.images, packs = given.size / kCount;
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const T* y = static_cast<const T*>(given.y) + row * given.size;
        const G* gt = static_cast<const G*>(given.gt) + row % given.images * given.size;
        T* gy = static_cast<T*>(given.gy) + row * given.size;
        const float factor = 2.0f * given.weights[row];
        for (int64_t i = blockIdx.x * (int64_t)kThreads + threadIdx.x; i < packs;
             i += gridDim.x * (int64_t)kThreads) {
            float a[kCount], b[kCount];
            load<kCount>(y + i * kCount, a);
            load<kCount>(gt + i * kCount, b);
#pragma unroll
            for (int j = 0; j < kCount; ++j) a[j] = factor * (a[j] - b[j]);
            store<kCount>(gy + i * kCount, a);
        }
    }
}

template <typename T, typename G>
void launch(cudaStream_t stream, const LossGradient& given) {
    constexpr int kWide = 16 / sizeof(T);
    const bool wide =
        given.size % kWide == 0 && aligned16(given.y) && aligned16(given.gt) && aligned16(given.gy);
    const int64_t rows = given.points * given.images;
    const int64_t packs = wide ? given.size / kWide : given.size;
    const dim3 grid(blocks_for(packs, kThreads), rows < kMostRows ? rows : kMostRows);
    if (wide) {
        run_kernel("loss_gradient", loss_gradient_kernel<T, G, kWide>, grid, kThreads, 0, stream,
                   given);
    } else {
        run_kernel("loss_gradient", loss_gradient_kernel<T, G, 1>, grid, kThreads, 0, stream,
                   given);
    }
}

template <typename T>
void launch_for_gt(cudaStream_t stream, const LossGradient& given, Type own) {
    if (given.gt_type == Type::fp32) return launch<T, float>(stream, given);
    if (given.gt_type == own) return launch<T, T>(stream, given);
    throw std::runtime_error("loss_gradient takes gt in fp32 or in the type of y");
}

}  // namespace

void loss_gradient(const Where& where, const LossGradient& given) {
    const cudaStream_t stream = stream_on(where, "loss_gradient");
    if (given.points * given.images * given.size == 0) return;
    switch (given.type) {
        case Type::fp16:
            return launch_for_gt<__half>(stream, given, Type::fp16);
        case Type::bf16:
            return launch_for_gt<__nv_bfloat16>(stream, given, Type::bf16);
        case Type::fp32:
            return launch_for_gt<float>(stream, given, Type::fp32);
        default:
            throw std::runtime_error("loss_gradient takes fp16, bf16 or fp32");
    }
}

}  // namespace faigfast::cuda
