// Whether wgmma reads matrices that start inside the 1024-byte pattern of the 128-byte swizzle,
// with a base offset of 0 as convolution64 has it, or with the start's own row.

#include <cuda_fp16.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "checks.h"
#include "memory.cuh"

namespace {

constexpr int kRow = 128;     // bytes of one row: 64 values of 16 bits
constexpr int kRowsOfB = 64;  // enough for two groups of 8 rows anywhere below
constexpr int kOutputs = 64, kK = 16;

__device__ uint32_t swizzled(uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

// `stride`: bytes between groups of 8 rows; `base`: 3 bits that PTX calls base offset.
__device__ uint64_t descriptor(uint32_t start, uint32_t stride, uint32_t base) {
    return uint64_t((start & 0x3ffff) >> 4) | uint64_t(1) << 16 | uint64_t(stride >> 4) << 32 |
           uint64_t(base) << 49 | uint64_t(1) << 62;
}

__device__ void multiply_k_major(float (&d)[8], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n"
        "wgmma.fence.sync.aligned;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, 1, 1, 1, 0, 0;\n"
        "wgmma.commit_group.sync.aligned;\n"
        "wgmma.wait_group.sync.aligned 0;\n"
        "}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7])
        : "l"(a), "l"(b)
        : "memory");
}

// Both operands transposed: rows are K, channels M and N, as in a weight gradient.
__device__ void multiply_mn_major(float (&d)[8], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n"
        "wgmma.fence.sync.aligned;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, 1, 1, 1, 1, 1;\n"
        "wgmma.commit_group.sync.aligned;\n"
        "wgmma.wait_group.sync.aligned 0;\n"
        "}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7])
        : "l"(a), "l"(b)
        : "memory");
}

// Small integers that tell rows and channels apart; products of 16 stay exact.
__host__ __device__ int value_a(int row, int channel) { return (row * 7 + channel * 3) % 11 - 5; }
__host__ __device__ int value_b(int row, int channel) { return (row * 5 + channel * 13) % 9 - 4; }

// d [64, 16] for B that starts `first` rows into memory. K-major: A's rows are outputs, B's rows
// are columns, and `step` moves along the channels. MN-major: rows of both are K, A's and B's
// channels are outputs and columns.
__global__ void one_product(bool mn_major, int first, int stride, int base, int step, float* d) {
    extern __shared__ unsigned char memory[];
    const uint32_t raw = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
    const uint32_t a = (raw + 1023) / 1024 * 1024, b = a + kOutputs * kRow;
    unsigned char* const origin = memory - raw;
    for (int i = threadIdx.x; i < kOutputs * 64; i += blockDim.x)
        *reinterpret_cast<__half*>(origin + swizzled(a + i / 64 * kRow + i % 64 * 2)) =
            __int2half_rn(value_a(i / 64, i % 64));
    for (int i = threadIdx.x; i < kRowsOfB * 64; i += blockDim.x)
        *reinterpret_cast<__half*>(origin + swizzled(b + i / 64 * kRow + i % 64 * 2)) =
            __int2half_rn(value_b(i / 64, i % 64));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    float sums[8] = {};
    const uint64_t along = step * kK * 2;  // bytes
    if (mn_major) {
        multiply_mn_major(sums, descriptor(a, 1024, 0), descriptor(b + first * kRow, stride, base));
    } else {
        multiply_k_major(sums, descriptor(a + along, 1024, 0),
                         descriptor(b + first * kRow + along, stride, base));
    }
    for (int i = 0; i < 8; ++i) {
        const int output = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
        const int column = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        d[output * 16 + column] = sums[i];
    }
}

bool product_is_right(bool mn_major, int first, int stride, int base) {
    Memory<float> d(kOutputs * 16);
    std::vector<float> got(kOutputs * 16);
    const int shared = (kOutputs + kRowsOfB) * kRow + 1024;
    bool right = true;
    for (int step = 0; step < (mn_major ? 1 : 4); ++step) {
        d.poison();
        one_product<<<1, 128, shared>>>(mn_major, first, stride, base, step, d.at);
        must(cudaGetLastError(), "one_product");
        must(cudaMemcpy(got.data(), d.at, got.size() * 4, cudaMemcpyDeviceToHost), "one_product");
        for (int output = 0; output < kOutputs; ++output)
            for (int column = 0; column < 16; ++column) {
                int sum = 0;
                for (int k = 0; k < kK; ++k) {
                    const int index = mn_major ? k : column;  // counts rows of B
                    const int row = first + index / 8 * (stride / kRow) + index % 8;
                    sum += mn_major ? value_a(k, output) * value_b(row, column)
                                    : value_a(output, step * kK + k) * value_b(row, step * kK + k);
                }
                right = right && got[output * 16 + column] == float(sum);
            }
    }
    return right;
}

}  // namespace

// Only K-major matrices must be right: no kernel has others yet, a weight gradient would.
bool descriptors() {
    bool right = true;
    for (int mn_major = 0; mn_major < 2; ++mn_major)
        for (int stride : {1024, 18 * kRow})
            for (int first = 0; first < 9; ++first) {
                const bool plain = product_is_right(mn_major, first, stride, 0);
                const bool offset = product_is_right(mn_major, first, stride, first % 8);
                std::printf(
                    "{\"name\": \"%s-major, stride %d, start in row %d\", \"%s\": %s, "
                    "\"with base offset\": %s}\n",
                    mn_major ? "MN" : "K", stride, first, mn_major ? "holds" : "right",
                    plain ? "true" : "false", offset ? "true" : "false");
                if (!mn_major) right = right && plain;
            }
    return right;
}
