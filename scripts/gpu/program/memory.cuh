#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

inline void must(cudaError_t status, const char* what) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Device memory; 0xff bytes are NaN in every type, so that what is not written shows.
template <class T>
struct Memory {
    T* at = nullptr;
    size_t count;
    explicit Memory(size_t n) : count(n) {
        must(cudaMalloc(&at, n * sizeof(T)), "cudaMalloc");
        poison();
    }
    Memory(const Memory&) = delete;
    ~Memory() { cudaFree(at); }
    void poison() { must(cudaMemset(at, 0xff, count * sizeof(T)), "cudaMemset"); }
};
