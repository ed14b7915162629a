#pragma once

#include <cstdint>

// A test that runs kernels on the CPU defines these functions itself.
#ifndef FAIGFAST_EMULATED

#include <cuda.h>

// Instructions of sm_90a that C++ cannot express: barriers of the copy engine, its tiles, wgmma,
// and moves of 8×8 blocks between registers and shared memory.

namespace faigfast::cuda::hopper {

__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Makes barriers that threads have initialised visible to the copy engine.
__device__ inline void barriers_made() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and extends the phase until so many bytes have been copied.
__device__ inline void arrive_expecting(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Waits until the phase of this parity is over.
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@over bra done;\n"
        "bra again;\n"
        "done:\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Copies a tile [samples, lines, pixels, channels] in from the map's tensor; 0 outside of it.
__device__ inline void copy_in(uint32_t to, const CUtensorMap* map, uint32_t barrier, int channel,
                               int x, int y, int sample) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(channel), "r"(x), "r"(y), "r"(sample)
        : "memory");
}

// Copies a tile out; values outside of the tensor are dropped.
__device__ inline void copy_out(const CUtensorMap* map, uint32_t from, int channel, int x, int y,
                                int sample) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group "
        "[%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
        "r"(from), "r"(channel), "r"(x), "r"(y), "r"(sample)
        : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until the copies of this thread have read their shared memory.
__device__ inline void copies_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// Lets the copy engine read what this thread wrote to shared memory.
__device__ inline void fence_for_copies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Synchronises the 128 threads of one warpgroup.
__device__ inline void group_sync(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

template <int kRegisters>
__device__ inline void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ inline void multiply_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void multiply_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kLeft>
__device__ inline void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

// Four 8×8 blocks of 16-bit values, transposed on the way; each lane names one row of 16 bytes.
__device__ inline void store_blocks(uint32_t row, const uint32_t (&values)[4]) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
        "r"(values[0]), "r"(values[1]), "r"(values[2]), "r"(values[3])
        : "memory");
}
__device__ inline void load_blocks(uint32_t row, uint32_t (&values)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(row)
                 : "memory");
}

#define FAIGFAST_8(i)                                                                           \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define FAIGFAST_WGMMA(type)                                                                \
    asm volatile(                                                                           \
        "{\n"                                                                               \
        ".reg .pred adds;\n"                                                                \
        "setp.ne.b32 adds, %66, 0;\n"                                                       \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                        \
        " "                                                                                 \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
        "%64, %65, adds, 1, 1, 0, 0;\n"                                                     \
        "}\n"                                                                               \
        : FAIGFAST_8(0), FAIGFAST_8(8), FAIGFAST_8(16), FAIGFAST_8(24), FAIGFAST_8(32),     \
          FAIGFAST_8(40), FAIGFAST_8(48), FAIGFAST_8(56)                                    \
        : "l"(a), "l"(b), "r"(adds))

// d [64, 128] += a [64, 16] · b [16, 128], or = where `adds` is 0; a and b are descriptors.
template <bool kBfloat>
__device__ inline void multiply(float (&d)[64], uint64_t a, uint64_t b, int adds) {
    if constexpr (kBfloat) {
        FAIGFAST_WGMMA("bf16");
    } else {
        FAIGFAST_WGMMA("f16");
    }
}
#undef FAIGFAST_WGMMA
#undef FAIGFAST_8

}  // namespace faigfast::cuda::hopper

#endif
