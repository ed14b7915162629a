// The gradient at an activation's input: g = scale · act'(saved) · gy, in the layout of the
// convolution's result; reads undo the pixel shuffle. The same pass sums, for each image over
// points and pixels, g for the bias and g·z for the slope of PReLU.
//
// Blocks write their sums to `room`; a second kernel adds them, always in the same order, so that
// results repeat to the bit.

#include "launch.h"
#include "values.cuh"

namespace faigfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostColumns = 32;  // packs of channels in a block

// The shape of a block's threads over packs of channels (fastest) and pixels.
struct Shape {
    int columns, rows;
    int64_t tiles, chunks;  // blocks over the packs, and over an image's pixels
};

Shape shape_of(const MaskGradient& given, int count) {
    const int64_t packs = ceil_div(given.channels, count);
    Shape shape;
    shape.columns = static_cast<int>(packs < kMostColumns ? packs : kMostColumns);
    shape.rows = kThreads / shape.columns;
    shape.tiles = ceil_div(packs, shape.columns);
    const int64_t pixels = given.samples * given.height * given.width;
    const int64_t most = kMostBlocks / (given.images * shape.tiles) + 1;
    const int64_t chunks = ceil_div(pixels, shape.rows * (int64_t)4);
    shape.chunks = chunks < most ? chunks : most;
    return shape;
}

// Offset in gy and saved of a channel of a pixel, counted over [all samples, height, width].
__device__ inline int64_t shuffled(const MaskGradient& given, int64_t pixel, int64_t channel) {
    const int64_t r = given.shuffle, area = r * r;
    const int64_t x = pixel % given.width, rest = pixel / given.width;
    const int64_t y = rest % given.height, sample = rest / given.height;
    const int64_t inner = channel % area;
    const int64_t row = (sample * given.height + y) * r + inner / r;
    return (row * given.width * r + x * r + inner % r) * (given.channels / area) + channel / area;
}

// Sums values[kCount] over the threads of a column, into [channels] of `to`.
template <int kCount>
__device__ inline void sum_rows(const float (&values)[kCount], float (*memory)[kCount + 1],
                                const Shape& shape, int column, int row, float* to, int64_t first,
                                int64_t channels) {
    __syncthreads();  // all threads have read the memory
#pragma unroll
    for (int i = 0; i < kCount; ++i) memory[threadIdx.x][i] = values[i];
    __syncthreads();
    if (row != 0 || first >= channels) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        float sum = 0;
        for (int r = 0; r < shape.rows; ++r) sum += memory[r * shape.columns + column][i];
        if (first + i < channels) to[first + i] = sum;
    }
}

template <typename T, int kCount, bool kShuffled>
__global__ __launch_bounds__(kThreads) void mask_gradient_kernel(MaskGradient given, Shape shape) {
    __shared__ float memory[kThreads][kCount + 1];
    const int column = threadIdx.x % shape.columns, row = threadIdx.x / shape.columns;
    const int64_t image = blockIdx.y / shape.tiles, tile = blockIdx.y % shape.tiles;
    const int64_t channel = (tile * shape.columns + column) * kCount;
    const int64_t area = given.height * given.width, pixels = given.samples * area;
    const int64_t step = gridDim.x * (int64_t)shape.rows;
    const bool working = row < shape.rows && channel < given.channels;
    float bias[kCount] = {}, slope[kCount] = {};
    for (int64_t p = 0; working && p < given.points; ++p) {
        // Index of the first pixel of this image's samples at point p.
        const int64_t base = (p * given.images + image) * pixels;
        float factor[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i)
            factor[i] = given.activation == Activation::relu ? 0.0f
                        : given.slopes ? given.slopes[p * given.channels + channel + i]
                                       : given.slope;
        for (int64_t q = blockIdx.x * (int64_t)shape.rows + row; q < pixels; q += step) {
            const int64_t at = (base + q) * given.channels + channel;
            const int64_t from = kShuffled ? shuffled(given, base + q, channel) : at;
            float g[kCount], z[kCount];
            load<kCount>(static_cast<const T*>(given.gy) + from, g);
            if (given.activation != Activation::none)
                load<kCount>(static_cast<const T*>(given.saved) + from, z);
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                g[i] *= given.scale;
                if (given.activation != Activation::none) {
                    // This order of the comparison keeps a gradient whose z is NaN.
                    if (given.activation == Activation::relu ? z[i] <= 0 : !(z[i] > 0)) {
                        slope[i] += g[i] * z[i];
                        g[i] *= factor[i];
                        if (given.activation == Activation::relu) g[i] = 0;
                    }
                }
                bias[i] += g[i];
            }
            if (given.g) store<kCount>(static_cast<T*>(given.g) + at, g);
        }
    }
    // [images, 2, chunks, channels]
    float* room = given.room + (image * 2 * gridDim.x + blockIdx.x) * given.channels;
    if (given.gb) sum_rows<kCount>(bias, memory, shape, column, row, room, channel, given.channels);
    room += gridDim.x * given.channels;
    if (given.gs)
        sum_rows<kCount>(slope, memory, shape, column, row, room, channel, given.channels);
}

constexpr int kLanes = 32, kGroups = 8;

// Adds the blocks' sums [images, 2, chunks, channels] over chunks.
__global__ __launch_bounds__(kLanes* kGroups) void mask_gradient_sums(MaskGradient given,
                                                                      int64_t chunks) {
    __shared__ float memory[kGroups][kLanes];
    const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
    const int64_t channel = blockIdx.x * (int64_t)kLanes + lane, image = blockIdx.y;
    float* total = blockIdx.z == 0 ? given.gb : given.gs;
    if (!total) return;
    const float* room = given.room + (image * 2 + blockIdx.z) * chunks * given.channels;
    float sum = 0;
    if (channel < given.channels)
#pragma unroll 4
        for (int64_t c = group; c < chunks; c += kGroups) sum += room[c * given.channels + channel];
    memory[group][lane] = sum;
    __syncthreads();
    if (group != 0 || channel >= given.channels) return;
    for (int i = 1; i < kGroups; ++i) sum += memory[i][lane];
    total[image * given.channels + channel] = sum;
}

template <typename T>
int pack_of(const MaskGradient& given) {
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = given.shuffle == 1 && given.channels % kWide == 0 && aligned16(given.gy) &&
                      aligned16(given.saved) && aligned16(given.g);
    return wide ? kWide : 1;
}

int pack_of(const MaskGradient& given) {
    switch (given.type) {
        case Type::fp16:
            return pack_of<__half>(given);
        case Type::bf16:
            return pack_of<__nv_bfloat16>(given);
        case Type::fp32:
            return pack_of<float>(given);
        default:
            throw std::runtime_error("mask_gradient takes fp16, bf16 or fp32");
    }
}

template <typename T>
void launch(cudaStream_t stream, const MaskGradient& given, int count) {
    const Shape shape = shape_of(given, count);
    const dim3 grid(shape.chunks, given.images * shape.tiles);
    if (count > 1) {
        run_kernel("mask_gradient", mask_gradient_kernel<T, 16 / sizeof(T), false>, grid, kThreads,
                   0, stream, given, shape);
    } else if (given.shuffle == 1) {
        run_kernel("mask_gradient", mask_gradient_kernel<T, 1, false>, grid, kThreads, 0, stream,
                   given, shape);
    } else {
        run_kernel("mask_gradient", mask_gradient_kernel<T, 1, true>, grid, kThreads, 0, stream,
                   given, shape);
    }
}

}  // namespace

int64_t mask_gradient_room(const MaskGradient& given) {
    return given.images * 2 * shape_of(given, pack_of(given)).chunks * given.channels;
}

void mask_gradient(const Where& where, const MaskGradient& given) {
    const cudaStream_t stream = stream_on(where, "mask_gradient");
    const int count = pack_of(given);
    const Shape shape = shape_of(given, count);
    if (given.images * shape.tiles > kMostRows)
        throw std::runtime_error("mask_gradient takes no more images and channels at once");
    switch (given.type) {
        case Type::fp16:
            launch<__half>(stream, given, count);
            break;
        case Type::bf16:
            launch<__nv_bfloat16>(stream, given, count);
            break;
        default:
            launch<float>(stream, given, count);
            break;
    }
    if (!given.gb && !given.gs) return;
    const dim3 grid(ceil_div(given.channels, kLanes), given.images, 2);
    run_kernel("mask_gradient_sums", mask_gradient_sums, grid, kLanes * kGroups, 0, stream, given,
               shape.chunks);
}

}  // namespace faigfast::cuda
