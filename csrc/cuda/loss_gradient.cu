// gy = 2·w·(y − gt): the gradient of an image's squared error, scaled by the node's weight, in one
// pass over y.

#include "launch.h"
#include "values.cuh"

namespace faigfast::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int kCount>
__global__ __launch_bounds__(kThreads) void loss_gradient_kernel(LossGradient given) {
    const int64_t rows = given.points * given.images, packs = given.size / kCount;
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const T* y = static_cast<const T*>(given.y) + row * given.size;
        const T* gt = static_cast<const T*>(given.gt) + row % given.images * given.size;
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

template <typename T>
void launch(cudaStream_t stream, const LossGradient& given) {
    constexpr int kWide = 16 / sizeof(T);
    const bool wide =
        given.size % kWide == 0 && aligned16(given.y) && aligned16(given.gt) && aligned16(given.gy);
    const int64_t rows = given.points * given.images;
    const int64_t packs = wide ? given.size / kWide : given.size;
    const dim3 grid(blocks_for(packs, kThreads), rows < kMostRows ? rows : kMostRows);
    if (wide) {
        run_kernel("loss_gradient", loss_gradient_kernel<T, kWide>, grid, kThreads, 0, stream,
                   given);
    } else {
        run_kernel("loss_gradient", loss_gradient_kernel<T, 1>, grid, kThreads, 0, stream, given);
    }
}

}  // namespace

void loss_gradient(const Where& where, const LossGradient& given) {
    const cudaStream_t stream = stream_on(where, "loss_gradient");
    if (given.points * given.images * given.size == 0) return;
    switch (given.type) {
        case Type::fp16:
            launch<__half>(stream, given);
            break;
        case Type::bf16:
            launch<__nv_bfloat16>(stream, given);
            break;
        case Type::fp32:
            launch<float>(stream, given);
            break;
        default:
            throw std::runtime_error("loss_gradient takes fp16, bf16 or fp32");
    }
}

}  // namespace faigfast::cuda
