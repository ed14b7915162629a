// The instructions of csrc/cuda/hopper.cuh on the CPU, written from the PTX document of NVIDIA:
// tiles are copied, swizzled, once all threads have run on; wgmma follows its descriptors. Nothing
// here uses layout64.h, so that a mistake there shows.

#pragma once

#include "emulated.h"

#define __grid_constant__

struct float2 {
    float x, y;
};
struct __half2 {
    __half x, y;
};
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __half2 __floats2half2_rn(float x, float y) {
    return {__float2half_rn(x), __float2half_rn(y)};
}
inline float2 __half22float2(__half2 both) { return {__half2float(both.x), __half2float(both.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 both) {
    return {__bfloat162float(both.x), __bfloat162float(both.y)};
}

// The driver's tensor maps.
using cuuint64_t = uint64_t;
using cuuint32_t = uint32_t;
using CUresult = int;
constexpr CUresult CUDA_SUCCESS = 0;
enum { CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 };
enum { CU_TENSOR_MAP_INTERLEAVE_NONE };
enum { CU_TENSOR_MAP_SWIZZLE_128B = 3 };
enum { CU_TENSOR_MAP_L2_PROMOTION_L2_256B };
enum { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE };

struct CUtensorMap {
    unsigned char* address;
    uint64_t sizes[4], strides[4];
    uint32_t box[4];
};

inline CUresult cuTensorMapEncodeTiled(CUtensorMap* map, int, int rank, void* address,
                                       const uint64_t* sizes, const uint64_t* strides,
                                       const uint32_t* box, const uint32_t* ones, int, int swizzle,
                                       int, int) {
    if (rank != 4 || swizzle != CU_TENSOR_MAP_SWIZZLE_128B || (uintptr_t)address % 16) return 1;
    if (box[0] * 2 > 128) return 1;  // the span of the swizzle
    map->address = static_cast<unsigned char*>(address);
    for (int i = 0; i < 4; ++i) {
        if (!sizes[i] || !box[i] || box[i] > 256 || ones[i] != 1) return 1;
        if (i > 0 && strides[i - 1] % 16) return 1;
        map->sizes[i] = sizes[i];
        map->strides[i] = i == 0 ? 2 : strides[i - 1];
        map->box[i] = box[i];
    }
    return CUDA_SUCCESS;
}

using cudaDriverEntryPointQueryResult = int;
constexpr int cudaDriverEntryPointSuccess = 0, cudaEnableDefault = 0;
inline cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** entry, int, int,
                                                    int* result) {
    *entry = reinterpret_cast<void*>(&cuTensorMapEncodeTiled);
    return *result = cudaSuccess;
}

using cudaDeviceAttr = int;
enum {
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMultiProcessorCount
};
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 0;
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
    const char* cores = std::getenv("FAIGFAST_CORES");
    *value = attribute == cudaDevAttrComputeCapabilityMajor   ? 9
             : attribute == cudaDevAttrComputeCapabilityMinor ? 0
             : cores                                          ? std::atoi(cores)
                                                              : 2;
    return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int bytes) {
    return bytes <= 227 * 1024 ? cudaSuccess : 1;
}

namespace faigfast::cuda::hopper {

using emulated::Block;

constexpr uint32_t kBase = 0x30;  // start of a block's shared memory

inline void demand(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

inline unsigned char* at(uint32_t address, size_t bytes) {
    std::vector<unsigned char>& shared = Block::current->shared;
    demand(address >= kBase && address - kBase + bytes <= shared.size(),
           "an address is outside of the shared memory");
    return shared.data() + (address - kBase);
}

inline uint32_t shared_address(const void* pointer) {
    return static_cast<const unsigned char*>(pointer) - Block::current->shared.data() + kBase;
}

// Exchanges bits 4–6 of an address in shared memory with bits 7–9.
inline uint32_t exchanged(uint32_t address) { return address ^ (address / 128 % 8 * 16); }

// An mbarrier: its eight bytes are opaque to kernels.
struct Barrier {
    int8_t arrivals, left;
    int8_t phase;
    int8_t unused;
    int32_t bytes;

    void settle() {
        if (left || bytes) return;
        left = arrivals;
        phase ^= 1;
    }
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& barrier_at(uint32_t address) {
    demand(address % 8 == 0, "a barrier is not aligned");
    return *reinterpret_cast<Barrier*>(at(address, 8));
}
inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
    barrier_at(barrier) = {static_cast<int8_t>(arrivals), static_cast<int8_t>(arrivals), 0, 0, 0};
}
inline void barriers_made() {}
inline void arrive(uint32_t barrier) {
    Barrier& state = barrier_at(barrier);
    demand(state.left > 0, "more threads arrive at a barrier than it waits for");
    --state.left;
    state.settle();
}
inline void arrive_expecting(uint32_t barrier, uint32_t bytes) {
    barrier_at(barrier).bytes += bytes;
    arrive(barrier);
}
inline void wait(uint32_t barrier, uint32_t parity) {
    demand(parity < 2, "a parity is neither 0 nor 1");
    while (static_cast<uint32_t>(barrier_at(barrier).phase) == parity) Block::give_way();
}

// Calls move(memory, shared) for each value of a tile; memory is null outside of the tensor.
template <typename Move>
void each_value(const CUtensorMap& map, uint32_t shared, const int (&from)[4], const Move& move) {
    demand(shared % 1024 == 0, "a tile does not begin where the swizzle's pattern does");
    uint32_t place = shared;
    for (uint32_t n = 0; n < map.box[3]; ++n)
        for (uint32_t y = 0; y < map.box[2]; ++y)
            for (uint32_t x = 0; x < map.box[1]; ++x)
                for (uint32_t c = 0; c < map.box[0]; ++c, place += 2) {
                    const int64_t index[4] = {from[0] + (int64_t)c, from[1] + (int64_t)x,
                                              from[2] + (int64_t)y, from[3] + (int64_t)n};
                    unsigned char* memory = map.address;
                    for (int i = 0; i < 4; ++i) {
                        const bool inside = index[i] >= 0 && index[i] < (int64_t)map.sizes[i];
                        memory = memory && inside ? memory + index[i] * map.strides[i] : nullptr;
                    }
                    move(memory, at(exchanged(place), 2));
                }
}

// Tiles may arrive in another order than they were asked for.
inline void copy_in(uint32_t to, const CUtensorMap* map, uint32_t barrier, int c, int x, int y,
                    int n) {
    const auto copy = [=] {
        each_value(*map, to, {c, x, y, n}, [](const unsigned char* memory, unsigned char* shared) {
            if (memory) {
                std::memcpy(shared, memory, 2);
            } else {
                std::memset(shared, 0, 2);
            }
        });
        Barrier& state = barrier_at(barrier);
        state.bytes -= 2 * map->box[0] * map->box[1] * map->box[2] * map->box[3];
        state.settle();
    };
    const bool late = map->box[1] > 16 && Block::current->copies_in++ % 3 == 0;  // a halo tile
    Block::do_later(copy, late && Block::ordered('3') ? 2 * Block::kRest : 0);
}
inline void copy_out(const CUtensorMap* map, uint32_t from, int c, int x, int y, int n) {
    int& left = Block::current->threads[Block::current->running].copies_out;
    ++left;
    const auto copy = [=, &left] {
        each_value(*map, from, {c, x, y, n},
                   [](unsigned char* memory, const unsigned char* shared) {
                       if (memory) std::memcpy(memory, shared, 2);
                   });
        --left;
    };
    // Delayed by some rounds, so that a tile copied in too early arrives first.
    Block::do_later(copy, 3);
}
inline void copies_read() {
    while (Block::current->threads[Block::current->running].copies_out) Block::give_way();
}
inline void fence_for_copies() {}
inline void group_sync(int) { Block::meet(emulated::kGroup); }
template <int>
void fewer_registers() {}
template <int>
void more_registers() {}
inline void multiply_begin() {}
inline void multiply_commit() {}
template <int>
void multiply_wait() {}

// Value (row, k) of the K-major matrix of a descriptor.
template <bool kBfloat>
float value_of(uint64_t descriptor, int row, int k) {
    demand(descriptor >> 62 == 1, "a descriptor does not say that 128 bytes are swizzled");
    demand((descriptor >> 49 & 7) == 0, "a descriptor has a base offset");
    const uint32_t start = (descriptor & 0x3fff) * 16, stride = (descriptor >> 32 & 0x3fff) * 16;
    const uint32_t address = exchanged(start + row / 8 * stride + row % 8 * 128 + k * 2);
    if constexpr (kBfloat) {
        __nv_bfloat16 value;
        std::memcpy(&value, at(address, 2), 2);
        return __bfloat162float(value);
    } else {
        __half value;
        std::memcpy(&value, at(address, 2), 2);
        return __half2float(value);
    }
}

// Adds to this thread's accumulators, among the 64×128 of its warpgroup.
template <bool kBfloat>
void multiply(float (&d)[64], uint64_t a, uint64_t b, int adds) {
    const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
    float rows[2][16];
    for (int half = 0; half < 2; ++half)
        for (int k = 0; k < 16; ++k) rows[half][k] = value_of<kBfloat>(a, row + 8 * half, k);
    for (int pair = 0; pair < 16; ++pair)
        for (int side = 0; side < 2; ++side) {
            const int column = pair * 8 + thread % 4 * 2 + side;
            float sums[2] = {};
            for (int k = 0; k < 16; ++k) {
                const float value = value_of<kBfloat>(b, column, k);
                for (int half = 0; half < 2; ++half) sums[half] += rows[half][k] * value;
            }
            for (int half = 0; half < 2; ++half) {
                float& value = d[pair * 4 + half * 2 + side];
                value = adds ? value + sums[half] : sums[half];
            }
        }
}

// The row that a lane names to its warp, and the lane's part of four blocks.
struct Blocks {
    uint32_t row, values[4];
};

inline uint16_t part(const Blocks& lane, int matrix, int side) {
    return static_cast<uint16_t>(lane.values[matrix] >> (16 * side));
}

// Transposed: row j, which a lane names, holds column j of the block; value (e, j) of the block is
// part j % 2 of lane 4·e + j / 2.
inline void store_blocks(uint32_t row, const uint32_t (&values)[4]) {
    const emulated::Shown<Blocks> warp({row, {values[0], values[1], values[2], values[3]}});
    const int lane = threadIdx.x % 32, matrix = lane / 8, j = lane % 8;
    for (int e = 0; e < 8; ++e) {
        const uint16_t value = part(warp.of(4 * e + j / 2), matrix, j % 2);
        std::memcpy(at(row, 16) + 2 * e, &value, 2);
    }
}
inline void load_blocks(uint32_t row, uint32_t (&values)[4]) {
    const emulated::Shown<Blocks> warp({row, {}});
    const int lane = threadIdx.x % 32, e = lane / 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t both[2];
        for (int side = 0; side < 2; ++side) {
            const int j = lane % 4 * 2 + side;
            std::memcpy(&both[side], at(warp.of(matrix * 8 + j).row, 16) + 2 * e, 2);
        }
        values[matrix] = both[0] | static_cast<uint32_t>(both[1]) << 16;
    }
}

}  // namespace faigfast::cuda::hopper
