#pragma once

// The microkernel: a tile of C = A·B, or C += A·B, held in registers.

#include "vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Size of a register tile, in vectors of columns and in rows: its accumulators, one row of B and
// one element of A fill the registers. A tile of fewer columns has more rows.
constexpr int kColumns = kRegisters == 32 ? 4 : 2;
constexpr int kRows = 6;
constexpr int kPanel = kColumns * kLanes;

constexpr int rows_of_tile(int64_t columns) {
    const int64_t rows = kRows * kColumns / columns;
    return (int)(rows < 2 * kRows ? rows : 2 * kRows);
}

// a(row, k) = a[row * a_row + k * a_k]; b_row and c_row are the strides of rows of b and c.
struct Operands {
    const float* a;
    int64_t a_row, a_k;
    const float* b;
    int64_t b_row;
    float* c;
    int64_t c_row;
    int64_t depth;
};

template <int kR, int kC, bool kAdd>
inline void multiply_tile(const Operands& o) {
    Vec sum[kR][kC];
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) sum[r][c] = Vec{};
    const float *a = o.a, *b = o.b;
    const int64_t a_row = o.a_row;
    for (int64_t k = o.depth; k > 0; --k) {
        Vec row[kC];
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) row[c] = load(b + c * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < kR; ++r) {
            const Vec value = broadcast(a[r * a_row]);
#pragma GCC unroll 4
            for (int c = 0; c < kC; ++c) sum[r][c] += value * row[c];
        }
        a += o.a_k;
        b += o.b_row;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) {
            float* to = o.c + r * o.c_row + c * kLanes;
            store(to, kAdd ? load(to) + sum[r][c] : sum[r][c]);
        }
}

// Multiplies the rows that are left, at most kR.
template <int kR, int kC, bool kAdd>
void multiply_remainder(const Operands& o, int64_t rows) {
    if constexpr (kR > 0) {
        if (rows == kR)
            multiply_tile<kR, kC, kAdd>(o);
        else
            multiply_remainder<kR - 1, kC, kAdd>(o, rows);
    }
}

template <int kC, bool kAdd>
void multiply_rows(Operands o, int64_t rows) {
    constexpr int kR = rows_of_tile(kC);
    for (; rows >= kR; rows -= kR) {
        multiply_tile<kR, kC, kAdd>(o);
        o.a += kR * o.a_row;
        o.c += kR * o.c_row;
    }
    multiply_remainder<kR - 1, kC, kAdd>(o, rows);
}

// Multiplies all rows by a panel of up to kColumns vectors of columns.
template <bool kAdd>
inline void multiply_panel(const Operands& o, int64_t rows, int64_t vectors) {
    switch (vectors) {
        case 1:
            return multiply_rows<1, kAdd>(o, rows);
        case 2:
            return multiply_rows<2, kAdd>(o, rows);
#if defined(__AVX512F__) || defined(__aarch64__)
        case 3:
            return multiply_rows<3, kAdd>(o, rows);
        case 4:
            return multiply_rows<4, kAdd>(o, rows);
#endif
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
