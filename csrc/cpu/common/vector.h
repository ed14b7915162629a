#pragma once

// Vectors of float32 as wide as the instruction set this is compiled for. Everything has internal
// linkage, so that no processor runs a copy compiled for another instruction set.

#include <stdint.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

// For functions that pass many vectors: a call would spill them to memory.
#define FAIGFAST_INLINE inline __attribute__((always_inline))

namespace faigfast::FAIGFAST_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRegisters = 32;
#else
constexpr int kLanes = 4, kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(float))));

// value where the mask holds, else zero.
inline Vec where(IntVec mask, Vec value) { return (Vec)((IntVec)value & mask); }

inline Vec broadcast(float value) { return value - Vec{}; }

inline Vec load(const float* from) {
    Vec value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, Vec value) { __builtin_memcpy(to, &value, sizeof value); }

// Non-temporal stores bypass the caches; each writes a whole, aligned cache line (AVX-512). Other
// threads must not read the line before `finish_stores`.
#if defined(__AVX512F__)
inline void store_nontemporal(float* to, Vec value) { _mm512_stream_ps(to, (__m512)value); }
inline void finish_stores() { _mm_sfence(); }
#else
inline void store_nontemporal(float* to, Vec value) { store(to, value); }
inline void finish_stores() {}
#endif

// Loads and stores of the first `count` lanes: memory past them is untouched, loaded lanes are 0.
#if defined(__AVX512F__)
inline Vec load(const float* from, int count) {
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}

inline void store(float* to, Vec value, int count) {
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
}
#elif defined(__AVX2__)
inline __m256i first(int count) {
    static const int32_t edge[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i*)(edge + 8 - count));
}

inline Vec load(const float* from, int count) {
    return (Vec)_mm256_maskload_ps(from, first(count));
}

inline void store(float* to, Vec value, int count) {
    _mm256_maskstore_ps(to, first(count), (__m256)value);
}
#else
inline Vec load(const float* from, int count) {
    Vec value = {};
    for (int i = 0; i < count; ++i) value[i] = from[i];
    return value;
}

inline void store(float* to, Vec value, int count) {
    for (int i = 0; i < count; ++i) to[i] = value[i];
}
#endif

inline void copy(const float* from, float* to, int64_t count) {
    for (; count >= kLanes; count -= kLanes, from += kLanes, to += kLanes) store(to, load(from));
    if (count) store(to, load(from, (int)count), (int)count);
}

// Adds rows [count, columns], `row` floats apart, to sums of whole vectors. The rows are first
// summed from zero, so that no single row is rounded against a large sum.
inline void add_rows_to(float* sums, const float* rows, int64_t count, int64_t row,
                        int64_t columns) {
    for (int64_t j = 0; j < columns; j += kLanes) {
        Vec total = {};
        for (int64_t i = 0; i < count; ++i) total += load(rows + i * row + j);
        store(sums + j, load(sums + j) + total);
    }
}

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
