// FAIG_k = Σ over a kernel's taps of |Δ·total|, image by image. Sums over taps run in one order, so
// that results repeat to the bit.

#include "launch.h"

namespace faigfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStaged = 32;  // taps up to which the filters of a block fit its shared memory

template <typename T>
__device__ inline T absolute(T value) {
    return value < 0 ? -value : value;
}

// [outputs, taps, inputs]: neighbours in a warp are inputs, so every read is coalesced.
template <typename T>
__global__ __launch_bounds__(kThreads) void score_reduction_inputs_last(ScoreReduction given) {
    const T* delta = static_cast<const T*>(given.delta);
    const int64_t filters = given.outputs * given.inputs;
    const T* total = static_cast<const T*>(given.total);
    T* scores = static_cast<T*>(given.scores);
    const int64_t work = given.images * filters;
    for (int64_t i = blockIdx.x * (int64_t)kThreads + threadIdx.x; i < work;
         i += gridDim.x * (int64_t)kThreads) {
        const int64_t image = i / filters, filter = i % filters;
        const int64_t at =
            filter / given.inputs * given.taps * given.inputs + filter % given.inputs;
        const T* here = total + image * filters * given.taps;
        T sum = 0;
        for (int64_t k = 0; k < given.taps; ++k)
            sum += absolute(delta[at + k * given.inputs] * here[at + k * given.inputs]);
        scores[i] = sum;
    }
}

// [filters, taps]: a block copies its filters in by coalesced reads, then each thread sums one.
template <typename T>
__global__ __launch_bounds__(kThreads) void score_reduction_taps_last(ScoreReduction given) {
    FAIGFAST_DYNAMIC_SHARED(memory);
    T* products = reinterpret_cast<T*>(memory);  // [kThreads, taps | 1]
    const T* delta = static_cast<const T*>(given.delta);
    const int64_t filters = given.outputs * given.inputs;
    const int taps = static_cast<int>(given.taps), row = taps | 1;  // odd, against bank conflicts
    const int64_t tiles = (filters + kThreads - 1) / kThreads;
    for (int64_t tile = blockIdx.x; tile < given.images * tiles; tile += gridDim.x) {
        const int64_t image = tile / tiles, first = tile % tiles * kThreads;
        const int count = static_cast<int>(min((int64_t)kThreads, filters - first)) * taps;
        const T* total = static_cast<const T*>(given.total) + (image * filters + first) * taps;
        __syncthreads();  // all threads have summed the tile before
        for (int i = threadIdx.x; i < count; i += kThreads)
            products[i / taps * row + i % taps] = absolute(delta[first * taps + i] * total[i]);
        __syncthreads();
        if (first + threadIdx.x >= filters) continue;
        T sum = 0;
        for (int k = 0; k < taps; ++k) sum += products[threadIdx.x * row + k];
        static_cast<T*>(given.scores)[image * filters + first + threadIdx.x] = sum;
    }
}

// Larger kernels: a warp sums one filter.
template <typename T>
__global__ __launch_bounds__(kThreads) void score_reduction_large(ScoreReduction given) {
    const T* delta = static_cast<const T*>(given.delta);
    const int64_t filters = given.outputs * given.inputs;
    const int lane = threadIdx.x % 32;
    const int64_t warps = gridDim.x * (int64_t)(kThreads / 32);
    for (int64_t i = blockIdx.x * (int64_t)(kThreads / 32) + threadIdx.x / 32;
         i < given.images * filters; i += warps) {
        const T* d = delta + i % filters * given.taps;
        const T* t = static_cast<const T*>(given.total) + i * given.taps;
        T sum = 0;
        for (int64_t k = lane; k < given.taps; k += 32) sum += absolute(d[k] * t[k]);
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (lane == 0) static_cast<T*>(given.scores)[i] = sum;
    }
}

template <typename T>
void launch(cudaStream_t stream, const ScoreReduction& given) {
    const int64_t filters = given.outputs * given.inputs, work = given.images * filters;
    if (!given.taps_last) {
        run_kernel("score_reduction_inputs_last", score_reduction_inputs_last<T>,
                   blocks_for(work, kThreads), kThreads, 0, stream, given);
    } else if (given.taps <= kStaged && sizeof(T) * kThreads * (given.taps | 1) <= 48 * 1024) {
        const size_t bytes = sizeof(T) * kThreads * (given.taps | 1);
        run_kernel("score_reduction_taps_last", score_reduction_taps_last<T>,
                   blocks_for(given.images * ceil_div(filters, kThreads), 1), kThreads, bytes,
                   stream, given);
    } else {
        run_kernel("score_reduction_large", score_reduction_large<T>,
                   blocks_for(work, kThreads / 32), kThreads, 0, stream, given);
    }
}

}  // namespace

void score_reduction(const Where& where, const ScoreReduction& given) {
    const cudaStream_t stream = stream_on(where, "score_reduction");
    if (given.images * given.outputs * given.inputs == 0) return;
    if (given.type == Type::fp32) {
        launch<float>(stream, given);
    } else if (given.type == Type::fp64) {
        launch<double>(stream, given);
    } else {
        throw std::runtime_error("score_reduction takes fp32 or fp64");
    }
}

}  // namespace faigfast::cuda
