#pragma once

// The transforms of Winograd's F(4×4, 3×3) with the points 0, ±1, ±2 and ∞ (Lavin and Gray, 2016):
//   y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A,   ∂L/∂w = Gᵀ [(A gy Aᵀ) ⊙ (Bᵀ x B)] G
// with x a patch of 6×6 pixels, y and gy tiles of 4×4. Every function takes one vector of channels.

#include "../common/vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int kTile = 4, kPatch = 6, kFrequencies = kPatch * kPatch;

// Bᵀ: x[6] -> x[6].
FAIGFAST_INLINE void apply_bt(Vec* x) {
    const Vec a = x[4] - 4 * x[2], b = x[3] - 4 * x[1];
    const Vec c = x[4] - x[2], d = x[3] - x[1];
    const Vec first = 4 * x[0] + (x[4] - 5 * x[2]);
    const Vec last = 4 * x[1] + (x[5] - 5 * x[3]);
    x[0] = first;
    x[1] = a + b;
    x[2] = a - b;
    x[3] = c + 2 * d;
    x[4] = c - 2 * d;
    x[5] = last;
}

// Aᵀ: m[6] -> y[4].
FAIGFAST_INLINE void apply_at(const Vec* m, Vec* y) {
    const Vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * d;
    y[2] = a + 4 * c;
    y[3] = b + 8 * d + m[5];
}

// A: g[4] -> m[6].
FAIGFAST_INLINE void apply_a(const Vec* g, Vec* m) {
    const Vec a = g[0] + g[2], b = g[1] + g[3], c = g[0] + 4 * g[2], d = 2 * g[1] + 8 * g[3];
    m[0] = g[0];
    m[1] = a + b;
    m[2] = a - b;
    m[3] = c + d;
    m[4] = c - d;
    m[5] = g[3];
}

// G: w[3] -> u[6].
FAIGFAST_INLINE void apply_g(const Vec* w, Vec* u) {
    const Vec a = (w[0] + w[2]) * (-1.f / 6), b = w[1] * (1.f / 6);
    const Vec c = w[0] * (1.f / 24) + w[2] * (1.f / 6), d = w[1] * (1.f / 12);
    u[0] = w[0] * 0.25f;
    u[1] = a - b;
    u[2] = a + b;
    u[3] = c + d;
    u[4] = c - d;
    u[5] = w[2];
}

// Gᵀ: u[6] -> w[3].
FAIGFAST_INLINE void apply_gt(const Vec* u, Vec* w) {
    const Vec a = u[1] + u[2], b = u[2] - u[1], c = u[3] + u[4], d = u[3] - u[4];
    w[0] = u[0] * 0.25f - a * (1.f / 6) + c * (1.f / 24);
    w[1] = b * (1.f / 6) + d * (1.f / 12);
    w[2] = (c - a) * (1.f / 6) + u[5];
}

// Bᵀ x B of a patch; from(row, column) gives a pixel. Frequencies are `slot` floats apart.
template <typename From>
FAIGFAST_INLINE void transform_input(From from, float* to, int64_t slot) {
    Vec half[kFrequencies];
#pragma GCC unroll 6
    for (int c = 0; c < kPatch; ++c) {
        Vec x[kPatch];
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) x[r] = from(r, c);
        apply_bt(x);
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) half[r * kPatch + c] = x[r];
    }
#pragma GCC unroll 6
    for (int r = 0; r < kPatch; ++r) {
        apply_bt(half + r * kPatch);
#pragma GCC unroll 6
        for (int c = 0; c < kPatch; ++c) store(to + (r * kPatch + c) * slot, half[r * kPatch + c]);
    }
}

// Aᵀ m A; to(row, column, value) receives the pixels of the tile.
template <typename To>
FAIGFAST_INLINE void transform_output(const float* from, int64_t slot, To to) {
    Vec half[kTile * kPatch];
#pragma GCC unroll 6
    for (int c = 0; c < kPatch; ++c) {
        Vec m[kPatch], y[kTile];
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) m[r] = load(from + (r * kPatch + c) * slot);
        apply_at(m, y);
#pragma GCC unroll 4
        for (int r = 0; r < kTile; ++r) half[r * kPatch + c] = y[r];
    }
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
        Vec y[kTile];
        apply_at(half + r * kPatch, y);
#pragma GCC unroll 4
        for (int c = 0; c < kTile; ++c) to(r, c, y[c]);
    }
}

// A gy Aᵀ of a tile; from(row, column) gives a pixel.
template <typename From>
FAIGFAST_INLINE void transform_gradient(From from, float* to, int64_t slot) {
    Vec half[kPatch * kTile];
#pragma GCC unroll 4
    for (int c = 0; c < kTile; ++c) {
        Vec g[kTile], m[kPatch];
#pragma GCC unroll 4
        for (int r = 0; r < kTile; ++r) g[r] = from(r, c);
        apply_a(g, m);
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) half[r * kTile + c] = m[r];
    }
#pragma GCC unroll 6
    for (int r = 0; r < kPatch; ++r) {
        Vec m[kPatch];
        apply_a(half + r * kTile, m);
#pragma GCC unroll 6
        for (int c = 0; c < kPatch; ++c) store(to + (r * kPatch + c) * slot, m[c]);
    }
}

// G w Gᵀ of nine taps.
FAIGFAST_INLINE void transform_weight(const Vec* w, float* to, int64_t slot) {
    Vec half[kPatch * 3];
#pragma GCC unroll 3
    for (int c = 0; c < 3; ++c) {
        const Vec column[3] = {w[c], w[3 + c], w[6 + c]};
        Vec u[kPatch];
        apply_g(column, u);
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) half[r * 3 + c] = u[r];
    }
#pragma GCC unroll 6
    for (int r = 0; r < kPatch; ++r) {
        Vec u[kPatch];
        apply_g(half + r * 3, u);
#pragma GCC unroll 6
        for (int c = 0; c < kPatch; ++c) store(to + (r * kPatch + c) * slot, u[c]);
    }
}

// Gᵀ u G, nine taps.
FAIGFAST_INLINE void transform_weight_gradient(const float* from, int64_t slot, Vec* w) {
    Vec half[3 * kPatch];
#pragma GCC unroll 6
    for (int c = 0; c < kPatch; ++c) {
        Vec u[kPatch], column[3];
#pragma GCC unroll 6
        for (int r = 0; r < kPatch; ++r) u[r] = load(from + (r * kPatch + c) * slot);
        apply_gt(u, column);
#pragma GCC unroll 3
        for (int r = 0; r < 3; ++r) half[r * kPatch + c] = column[r];
    }
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) apply_gt(half + r * kPatch, w + r * 3);
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
