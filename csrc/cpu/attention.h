#pragma once

#include <stdint.h>

#include "isas.h"

// Attention in float32: y = softmax(q k + bias + mask) v, for each head of each window, without a
// matrix [rows, columns] in memory. All functions are compiled once per instruction set.

namespace faigfast {

// One matrix for each head of each window; strides count floats and are 0 where all share it.
struct Matrices {
    const float* data;  // null: no matrix
    int64_t window, head, row, column;

    const float* of(int64_t w, int64_t h) const { return data + w * window + h * head; }
};

struct Attention {
    int64_t windows, heads;
    int64_t rows, columns;  // queries, and keys with their values
    int64_t depth, width;   // of a query, and of a value
    Matrices q, k, v;       // [rows, depth], [depth, columns], [columns, width]
    Matrices bias, mask;    // [rows, columns], columns dense; each may be null
    int threads;
};

struct AttentionGradients {
    const float* gy;     // as y
    const float* stats;  // from `attend`
    float* gq;           // [windows, heads, rows, depth]
    float* gk;           // [windows, heads, depth, columns]
    float* gv;           // [windows, heads, width, columns]
    float* gbias;        // [heads, rows, columns], summed over the windows; null where not wanted
};

// y [windows, heads, rows, width]; stats [windows, heads, rows, 2]: each row's largest score and
// the inverse of the sum of its exponentials.
#define FAIGFAST_DECLARE(isa)                                          \
    namespace isa {                                                    \
    void attend(const Attention&, float* y, float* stats);             \
    void attend_backward(const Attention&, const AttentionGradients&); \
    }
FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE

}  // namespace faigfast
