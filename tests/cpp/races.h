// Included before the kernels where ThreadSanitizer looks for races. It sees reads and writes of at
// most 16 bytes; these macros report the wider and the masked ones.

#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <stddef.h>

extern "C" void __tsan_read_range(const void* start, size_t size);
extern "C" void __tsan_write_range(void* start, size_t size);

#define __builtin_memcpy(to, from, size) \
    (__tsan_read_range(from, size), __tsan_write_range(to, size), __builtin_memcpy(to, from, size))

#define FAIGFAST_PREFETCH(line) __tsan_read_range(line, sizeof *(line))

#ifdef __AVX2__
// A mask selects the first lanes, so the number of its bits gives the bytes.
#define FAIGFAST_LANES(mask) __builtin_popcount(_mm256_movemask_ps((__m256)(mask)))
#define _mm256_maskload_ps(from, mask) \
    (__tsan_read_range(from, 4 * FAIGFAST_LANES(mask)), _mm256_maskload_ps(from, mask))
#define _mm256_maskstore_ps(to, mask, value) \
    (__tsan_write_range(to, 4 * FAIGFAST_LANES(mask)), _mm256_maskstore_ps(to, mask, value))
#define _mm512_maskz_loadu_ps(mask, from) \
    (__tsan_read_range(from, 4 * __builtin_popcount(mask)), _mm512_maskz_loadu_ps(mask, from))
#define _mm512_mask_storeu_ps(to, mask, value) \
    (__tsan_write_range(to, 4 * __builtin_popcount(mask)), _mm512_mask_storeu_ps(to, mask, value))
#define _mm512_stream_ps(to, value) (__tsan_write_range(to, 64), _mm512_stream_ps(to, value))
#endif
