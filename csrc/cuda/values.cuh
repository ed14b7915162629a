#pragma once

#ifndef FAIGFAST_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>
#include <cstring>

// Loads and stores of several values: of some type in memory, float in registers.

namespace faigfast::cuda {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
    return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
    return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// The same bits as another type of the same size.
template <typename To, typename From>
__device__ inline To bits_as(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

// One access of up to 16 bytes; its address must be a multiple of its size.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
    T values[kCount];
};

// Uses accesses of 16 bytes where kCount allows.
template <int kCount, typename T>
__device__ inline void load(const T* from, float (&to)[kCount]) {
    constexpr int kWidest = 16 / sizeof(T), kPack = kCount < kWidest ? kCount : kWidest;
#pragma unroll
    for (int first = 0; first < kCount; first += kPack) {
        const auto pack = *reinterpret_cast<const Pack<T, kPack>*>(from + first);
#pragma unroll
        for (int i = 0; i < kPack; ++i) to[first + i] = to_float(pack.values[i]);
    }
}

template <int kCount, typename T>
__device__ inline void store(T* to, const float (&from)[kCount]) {
    Pack<T, kCount> pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] = from_float<T>(from[i]);
    *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

}  // namespace faigfast::cuda
