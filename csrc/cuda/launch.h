#pragma once

// What all launchers share; for nvcc, or for a host that emulates it in a test.
#ifndef FAIGFAST_EMULATED
#include <cuda_runtime.h>
// Shared memory of a size that the launch gives.
#define FAIGFAST_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

#include <stdexcept>
#include <string>

#include "api.h"

namespace faigfast::cuda {

inline void check(cudaError_t status, const std::string& kernel, const std::string& what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // the runtime keeps the error, and the next launch would be blamed for it
    throw std::runtime_error("the CUDA kernel " + kernel + " " + what + ": " +
                             cudaGetErrorString(status));
}

inline cudaStream_t stream_on(const Where& where, const char* kernel) {
    check(cudaSetDevice(where.device), kernel, "cannot use its device");
    return static_cast<cudaStream_t>(where.stream);
}

#ifndef FAIGFAST_EMULATED
// Every launch goes through here, so that its error is checked and names the kernel. An error that
// earlier work left behind shows here too.
template <typename... Parameters, typename... Given>
void run_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                size_t shared_bytes, cudaStream_t stream, const Given&... given) {
    kernel<<<grid, threads, shared_bytes, stream>>>(given...);
    check(cudaGetLastError(), name,
          "could not be launched as " + std::to_string(grid.x) + "×" + std::to_string(grid.y) +
              "×" + std::to_string(grid.z) + " blocks of " + std::to_string(threads) + " threads");
}
#endif

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace faigfast::cuda
