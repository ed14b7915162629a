#pragma once

// Products of matrices of bfloat16, summed in float32: by the tiles of AMX where this is compiled
// for them, elsewhere in plain C++, which sums in another order.

#include <stdint.h>

#include "../common/vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

typedef uint16_t Bf16;

// A tile holds 16 rows: 32 numbers of A, 16 pairs of B, whose rows are two rows of the matrix
// interleaved, or 16 sums.
constexpr int64_t kTileRows = 16, kTileDepth = 32;
constexpr int64_t kTileSize = kTileRows * kTileDepth;

// Addresses of two tiles below each other of A, and of two beside each other of B.
struct Tiles2 {
    const Bf16 *a[2], *b[2];
};

// Two by two tiles of sums; the strides of rows are in numbers.
struct TileProducts {
    float* c[2][2];
    int64_t c_row, a_row, b_row;
    bool adds;  // to what c holds
};

// Rounds a vector to the nearest numbers, ties to even.
inline void store(Bf16* to, Vec value) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
#else
    uint32_t bits[kLanes];
    __builtin_memcpy(bits, &value, sizeof bits);
    for (int i = 0; i < kLanes; ++i) {
        const bool nan = (bits[i] & 0x7fffffff) > 0x7f800000;
        const uint32_t half = 0x7fff + (bits[i] >> 16 & 1);
        to[i] = (Bf16)(nan ? bits[i] >> 16 | 0x40 : (bits[i] + half) >> 16);
    }
#endif
}

#ifdef __AVX512BF16__
// 16 numbers as 32 bits each; and pairs of the numbers of two such vectors.
inline __m512i widened(const Bf16* from) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
}
inline __m512i paired(__m512i low, __m512i high) {
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#endif

// Interleaves 16 numbers of each pixel with those of the next: pair q goes to to[q % 2], whose rows
// are `to_row` numbers apart. Reads `count` + 1 pixels.
inline void pair_pixels(const Bf16* pixels, int64_t pixel, int64_t first, int64_t count,
                        Bf16* const (&to)[2], int64_t to_row) {
#ifdef __AVX512BF16__
    __m512i low = widened(pixels);
    for (int64_t q = first; q < first + count; ++q) {
        pixels += pixel;
        const __m512i high = widened(pixels);
        _mm512_storeu_si512(to[q & 1] + (q >> 1) * to_row, paired(low, high));
        low = high;
    }
#else
    for (int64_t q = first; q < first + count; ++q, pixels += pixel) {
        Bf16* pairs = to[q & 1] + (q >> 1) * to_row;
        for (int i = 0; i < 16; ++i) pairs[2 * i] = pixels[i], pairs[2 * i + 1] = pixels[pixel + i];
    }
#endif
}

// Transposes rows [32, 16], `row` numbers apart, into [16, 32].
inline void transpose(const Bf16* rows, int64_t row, Bf16* to) {
#ifdef __AVX512BF16__
    // Eight columns at a time. A vector holds them of four rows, eight apart: what is left is to
    // transpose 8×8 numbers within each of its quarters.
    for (int64_t half = 0; half < 2; ++half, rows += 8, to += kTileSize / 2) {
        __m512i a[8], b[8];
        const auto at = [&](int i) { return _mm_loadu_si128((const __m128i*)(rows + i * row)); };
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            a[i] = _mm512_castsi128_si512(at(i));
            a[i] = _mm512_inserti32x4(a[i], at(i + 8), 1);
            a[i] = _mm512_inserti32x4(a[i], at(i + 16), 2);
            a[i] = _mm512_inserti32x4(a[i], at(i + 24), 3);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            b[2 * i] = _mm512_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
            for (int k = 0; k < 2; ++k) {
                a[i + 2 * k] = _mm512_unpacklo_epi32(b[i + k], b[i + 2 + k]);
                a[i + 2 * k + 1] = _mm512_unpackhi_epi32(b[i + k], b[i + 2 + k]);
            }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            _mm512_storeu_si512(to + 64 * i, _mm512_unpacklo_epi64(a[i], a[i + 4]));
            _mm512_storeu_si512(to + 64 * i + 32, _mm512_unpackhi_epi64(a[i], a[i + 4]));
        }
    }
#else
    for (int i = 0; i < 16; ++i)
        for (int q = 0; q < 32; ++q) to[32 * i + q] = rows[q * row + i];
#endif
}

#ifdef __AMX_BF16__

// GCC does not know what memory tile loads read: this completes the stores before them.
inline void complete_stores(const void* at) { __asm__ volatile("" : : "r"(at) : "memory"); }

// Tiles are configured while this lives, in its thread alone.
struct TileSession {
    TileSession() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } layout;
        for (int i = 0; i < 8; ++i) layout.bytes[i] = 2 * kTileDepth, layout.rows[i] = kTileRows;
        complete_stores(&layout);
        _tile_loadconfig(&layout);
    }
    ~TileSession() { _tile_release(); }
};

// Sums of A·B over steps; at(step) gives the tiles, and is called once a step, in order.
template <int kDown, int kAcross, typename At>
inline void multiply_tiles(int64_t steps, const TileProducts& to, At at) {
    const int64_t a_row = 2 * to.a_row, b_row = 2 * to.b_row, c_row = 4 * to.c_row;
    complete_stores(to.c[0][0]);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (to.adds) {
        _tile_loadd(0, to.c[0][0], c_row);
        if (kAcross > 1) _tile_loadd(1, to.c[0][1], c_row);
        if (kDown > 1) _tile_loadd(2, to.c[1][0], c_row);
        if (kDown > 1 && kAcross > 1) _tile_loadd(3, to.c[1][1], c_row);
    }
    for (int64_t step = 0; step < steps; ++step) {
        const Tiles2 tiles = at(step);
        _tile_loadd(4, tiles.a[0], a_row);
        _tile_loadd(6, tiles.b[0], b_row);
        _tile_dpbf16ps(0, 4, 6);
        if (kAcross > 1) {
            _tile_loadd(7, tiles.b[1], b_row);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (kDown > 1) {
            _tile_loadd(5, tiles.a[1], a_row);
            _tile_dpbf16ps(2, 5, 6);
            if (kAcross > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, to.c[0][0], c_row);
    if (kAcross > 1) _tile_stored(1, to.c[0][1], c_row);
    if (kDown > 1) _tile_stored(2, to.c[1][0], c_row);
    if (kDown > 1 && kAcross > 1) _tile_stored(3, to.c[1][1], c_row);
    complete_stores(to.c[0][0]);
}

#else

struct TileSession {
    TileSession() {}
    ~TileSession() {}
};

inline float as_float(Bf16 value) {
    const uint32_t bits = (uint32_t)value << 16;
    float number;
    __builtin_memcpy(&number, &bits, sizeof number);
    return number;
}

template <int kDown, int kAcross, typename At>
inline void multiply_tiles(int64_t steps, const TileProducts& to, At at) {
    float products[kDown][kAcross][kTileRows][kTileRows] = {};
    for (int64_t step = 0; step < steps; ++step) {
        const Tiles2 tiles = at(step);
        for (int r = 0; r < kDown; ++r)
            for (int c = 0; c < kAcross; ++c)
                for (int64_t m = 0; m < kTileRows; ++m)
                    for (int64_t k = 0; k < kTileDepth; ++k) {
                        const float a = as_float(tiles.a[r][m * to.a_row + k]);
                        const Bf16* b = tiles.b[c] + k / 2 * to.b_row + k % 2;
                        float* row = products[r][c][m];
                        for (int64_t n = 0; n < kTileRows; ++n) row[n] += a * as_float(b[2 * n]);
                    }
    }
    for (int r = 0; r < kDown; ++r)
        for (int c = 0; c < kAcross; ++c)
            for (int64_t m = 0; m < kTileRows; ++m)
                for (int64_t n = 0; n < kTileRows; ++n) {
                    float& sum = to.c[r][c][m * to.c_row + n];
                    sum = to.adds ? sum + products[r][c][m][n] : products[r][c][m][n];
                }
}

#endif

// As above, for one or two tiles down and across.
template <typename At>
inline void multiply_tiles(int64_t down, int64_t across, int64_t steps, const TileProducts& to,
                           At at) {
    if (down > 1)
        across > 1 ? multiply_tiles<2, 2>(steps, to, at) : multiply_tiles<2, 1>(steps, to, at);
    else
        across > 1 ? multiply_tiles<1, 2>(steps, to, at) : multiply_tiles<1, 1>(steps, to, at);
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
