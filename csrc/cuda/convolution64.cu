// Path convolution 3×3 of 64 channels to 64 on Hopper, in fp16 or bf16 with fp32 sums.
//
// A block keeps the weights of one point in shared memory. One warpgroup copies halo tiles in with
// the copy engine, whose zeros outside an image are the padding. Two warpgroups multiply every
// second tile each in turn, so that the epilogue of one overlaps with the wgmma of the other. The
// nine taps are nine start addresses in the same tile. Results replace the tile in its stage and
// leave as one copy. layout64.h has the layout.

#include <algorithm>

#include "hopper.cuh"
#include "launch.h"
#include "layout64.h"
#include "values.cuh"

namespace faigfast::cuda {
namespace {

using namespace hopper;
using namespace layout64;

constexpr char kName[] = "convolution64";
constexpr int kFewRegisters = 40, kManyRegisters = 232;  // (40 + 2·232)·128 of 65536

struct Parameters {
    Work work;
    bool shared, residual_shared, has_residual;
    const float* bias;
    Activation activation;
    float slope, scale;
};

struct Maps {
    CUtensorMap x, weights, residual, y;
};

// Addresses in shared memory.
struct Shared {
    uint32_t base;
    __device__ uint32_t stage(int s) const { return base + kStagesAt + s * kStageBytes; }
    __device__ uint32_t barrier(int i) const { return base + kBarriersAt + 8 * i; }
    __device__ uint32_t full(int s) const { return barrier(s); }
    __device__ uint32_t empty(int s) const { return barrier(kStages + s); }
    __device__ uint32_t weights_full() const { return barrier(2 * kStages); }
    __device__ uint32_t weights_empty() const { return barrier(2 * kStages + 1); }
    __device__ uint32_t residual_full(int c) const { return barrier(2 * kStages + 2 + c); }
    __device__ uint32_t turn(int c) const { return barrier(2 * kStages + 2 + kConsumers + c); }
};

// Index of a sample in a tensor [points, samples, …], or in one that all points share.
__device__ inline int sample_at(const Work& work, const Item& item, bool shared) {
    return (shared ? 0 : item.point * work.samples) + item.sample;
}

// One thread copies in the weights at every change of point, and tile after tile.
__device__ inline void produce(const Parameters& given, const Maps& maps, const Shared& shared,
                               int first, int last) {
    int n = 0;
    for (uint32_t segment = 0; first < last; ++segment) {
        const int end = segment_end(given.work, first, last);
        const int point = first / given.work.tiles();
        if (segment > 0) wait(shared.weights_empty(), (segment - 1) % 2);
        arrive_expecting(shared.weights_full(), kWeightBytes);
        for (int tap = 0; tap < kTaps; ++tap)
            copy_in(shared.base + tap * kTapBytes, &maps.weights, shared.weights_full(), 0, tap, 0,
                    point);
        for (; first < end; ++first, ++n) {
            const int s = stage_of(n);
            if (n >= kStages) wait(shared.empty(s), phase_of(n - kStages));
            const Item item = item_of(given.work, first);
            arrive_expecting(shared.full(s), kHaloBytes);
            copy_in(shared.stage(s), &maps.x, shared.full(s), 0, item.x - 1, item.y - 1,
                    sample_at(given.work, item, given.shared));
        }
    }
}

template <bool kBfloat>
__device__ inline uint32_t pack(float low, float high) {
    if constexpr (kBfloat) {
        return bits_as<uint32_t>(__floats2bfloat162_rn(low, high));
    } else {
        return bits_as<uint32_t>(__floats2half2_rn(low, high));
    }
}

template <bool kBfloat>
__device__ inline float2 unpack(uint32_t both) {
    if constexpr (kBfloat) {
        return __bfloat1622float2(bits_as<__nv_bfloat162>(both));
    } else {
        return __half22float2(bits_as<__half2>(both));
    }
}

__device__ inline float activated(float z, float bias, const Parameters& given) {
    z += bias;
    // This order of the comparison lets NaN through.
    if (given.activation == Activation::relu) z = z < 0 ? 0 : z;
    if (given.activation == Activation::leaky) z = z > 0 ? z : z * given.slope;
    return z * given.scale;
}

// Adds the residual, if the stage holds one, to activated sums, and writes the results over it.
template <bool kBfloat>
__device__ inline void epilogue(const float (&d)[kStrips][kAccumulators], const float (&bias)[2],
                                const Parameters& given, uint32_t stage) {
    const int thread = threadIdx.x % kGroup, warp = thread / 32, lane = thread % 32;
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip)
#pragma unroll
        for (int line = 0; line < kTile; line += 2) {
            const uint32_t row = block_row(stage, strip, line, warp, lane);
            uint32_t values[4] = {};
            if (given.has_residual) load_blocks(row, values);
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const int i = (line + m / 2) * 4 + m % 2 * 2;
                float2 residual = unpack<kBfloat>(values[m]);
                if (!given.has_residual) residual = {0, 0};
                values[m] =
                    pack<kBfloat>(activated(d[strip][i], bias[m % 2], given) + residual.x,
                                  activated(d[strip][i + 1], bias[m % 2], given) + residual.y);
            }
            store_blocks(row, values);
        }
}

template <bool kBfloat>
__device__ inline void consume(const Parameters& given, const Maps& maps, const Shared& shared,
                               int first, int last, int consumer) {
    const int thread = threadIdx.x % kGroup;
    const bool leader = thread == 0;
    int n = 0;
    uint32_t residuals = 0;
    for (uint32_t segment = 0; first < last; ++segment) {
        const int end = segment_end(given.work, first, last);
        float bias[2] = {};
        if (given.bias)
            for (int half = 0; half < 2; ++half)
                bias[half] =
                    given
                        .bias[first / given.work.tiles() * kChannels + output_of(thread, 2 * half)];
        wait(shared.weights_full(), segment % 2);
        for (; first < end; ++first, ++n) {
            if (consumer_of(n) != consumer) continue;
            const int s = stage_of(n);
            const uint32_t stage = shared.stage(s);
            const Item item = item_of(given.work, first);
            // A consumer sees every second phase of a stage: without turns, one that is ahead would
            // take the phase of a tile still on its way for the phase that it waits for. Turns also
            // keep epilogues apart, so that one overlaps with the other's wgmma.
            wait(shared.turn(consumer), turn_of(n));
            wait(shared.full(s), phase_of(n));
            float d[kStrips][kAccumulators];
            multiply_begin();
#pragma unroll
            for (int strip = 0; strip < kStrips; ++strip)
#pragma unroll
                for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
                    for (int step = 0; step < kSteps; ++step)
                        multiply<kBfloat>(d[strip], weights_descriptor(shared.base, tap, step),
                                          pixels_descriptor(stage, strip, tap, step),
                                          tap + step > 0);
            multiply_commit();
            if (leader) arrive(shared.turn(1 - consumer));
            multiply_wait<0>();
            group_sync(consumer);  // all warps have read the tile
            if (given.has_residual) {
                if (leader) {
                    arrive_expecting(shared.residual_full(consumer), kTileBytes);
                    copy_in(stage, &maps.residual, shared.residual_full(consumer), 0, item.x,
                            item.y, sample_at(given.work, item, given.residual_shared));
                }
                wait(shared.residual_full(consumer), residuals++ % 2);
            }
            epilogue<kBfloat>(d, bias, given, stage);
            fence_for_copies();
            group_sync(consumer);
            if (leader) {
                copy_out(&maps.y, stage, 0, item.x, item.y, sample_at(given.work, item, false));
                copies_read();
                arrive(shared.empty(s));
            }
        }
        // No warp of the group still reads these weights, or waits to see that they came. A group
        // without a tile at this point says so nowhere else.
        group_sync(consumer);
        if (leader) arrive(shared.weights_empty());
    }
}

template <bool kBfloat>
__global__ __launch_bounds__(kThreads, 1) void convolution64_kernel(
    const __grid_constant__ Maps maps, const __grid_constant__ Parameters given) {
    FAIGFAST_DYNAMIC_SHARED(memory);
    const Shared shared = {(shared_address(memory) + kPattern - 1) / kPattern * kPattern};
    if (threadIdx.x == 0) {
        for (int s = 0; s < kStages; ++s) {
            barrier_init(shared.full(s), 1);
            barrier_init(shared.empty(s), 1);
        }
        barrier_init(shared.weights_full(), 1);
        barrier_init(shared.weights_empty(), kConsumers);
        for (int c = 0; c < kConsumers; ++c) {
            barrier_init(shared.residual_full(c), 1);
            barrier_init(shared.turn(c), 1);
        }
        barriers_made();
    }
    __syncthreads();
    const int first = first_item(given.work, blockIdx.x, gridDim.x);
    const int last = first_item(given.work, blockIdx.x + 1, gridDim.x);
    const int group = threadIdx.x / kGroup;
    if (group == 0) {
        fewer_registers<kFewRegisters>();
        if (threadIdx.x == 0) produce(given, maps, shared, first, last);
    } else {
        more_registers<kManyRegisters>();
        consume<kBfloat>(given, maps, shared, first, last, group - 1);
    }
}

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, looked up at run time so that nothing links to the driver.
Encode encoder() {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                           cudaEnableDefault, &result),
          kName, "does not find the driver's cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess || !entry)
        throw std::runtime_error(
            "the driver has no cuTensorMapEncodeTiled, which convolution64 needs");
    return reinterpret_cast<Encode>(entry);
}

// Tensor map of a dense tensor [d3, d2, d1, 64] in tiles [1, b2, b1, 64], swizzled by 128 bytes.
CUtensorMap map_of(Type type, const void* address, uint64_t d1, uint64_t d2, uint64_t d3,
                   uint32_t b1, uint32_t b2) {
    static const Encode encode = encoder();
    const cuuint64_t sizes[4] = {kChannels, d1, d2, d3};
    const cuuint64_t strides[3] = {kRow, d1 * kRow, d2 * d1 * kRow};  // bytes
    const cuuint32_t box[4] = {kChannels, b1, b2, 1}, ones[4] = {1, 1, 1, 1};
    CUtensorMap map;
    const CUresult status = encode(
        &map,
        type == Type::fp16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
        const_cast<void*>(address), sizes, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        throw std::runtime_error("the CUDA kernel convolution64 cannot have a tensor map of " +
                                 std::to_string(d3) + "×" + std::to_string(d2) + "×" +
                                 std::to_string(d1) + "×64: error " + std::to_string(status));
    return map;
}

int attribute_of(cudaDeviceAttr attribute, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, device), kName, "cannot ask its device");
    return value;
}

void check_card(int device) {
    const int major = attribute_of(cudaDevAttrComputeCapabilityMajor, device);
    const int minor = attribute_of(cudaDevAttrComputeCapabilityMinor, device);
    if (major != 9 || minor != 0)
        throw std::runtime_error(
            "the CUDA kernel convolution64 is for compute capability 9.0 alone; the device has " +
            std::to_string(major) + "." + std::to_string(minor));
}

template <bool kBfloat>
void launch(cudaStream_t stream, unsigned blocks, const Maps& maps, const Parameters& given) {
    check(cudaFuncSetAttribute(convolution64_kernel<kBfloat>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
          kName, "cannot have its shared memory");
    run_kernel(kName, convolution64_kernel<kBfloat>, blocks, kThreads, kSharedBytes, stream, maps,
               given);
}

}  // namespace

void convolution64(const Where& where, const Convolution64& given) {
    const cudaStream_t stream = stream_on(where, kName);
    check_card(where.device);
    const uint64_t width = given.width, height = given.height;
    const uint64_t all = given.points * given.samples;
    const int64_t tiles = ceil_div(given.height, kTile) * ceil_div(given.width, kTile);
    if (given.points * given.samples * tiles == 0) return;
    if (given.points * given.samples * tiles > INT32_MAX)
        throw std::runtime_error("convolution64 takes no more than 2^31 tiles of 16×16 pixels");
    const Work work = {static_cast<int>(given.points), static_cast<int>(given.samples),
                       static_cast<int>(given.height), static_cast<int>(given.width)};
    const Type type = given.type;
    Maps maps;
    maps.x = map_of(type, given.x, width, height, given.shared ? given.samples : all, kHalo, kHalo);
    maps.weights = map_of(type, given.gamma, kTaps, kChannels, given.points, 1, kChannels);
    maps.y = map_of(type, given.y, width, height, all, kTile, kTile);
    maps.residual = given.residual
                        ? map_of(type, given.residual, width, height,
                                 given.residual_shared ? given.samples : all, kTile, kTile)
                        : maps.y;
    const Parameters parameters = {
        work,       given.shared,     given.residual_shared, given.residual != nullptr,
        given.bias, given.activation, given.slope,           given.scale};
    const int cores = attribute_of(cudaDevAttrMultiProcessorCount, where.device);
    const unsigned blocks = std::min(cores, work.items());
    if (type == Type::fp16) {
        launch<false>(stream, blocks, maps, parameters);
    } else {
        launch<true>(stream, blocks, maps, parameters);
    }
}

}  // namespace faigfast::cuda
