#pragma once

// Channel blocking: a wide layer in parts of its input and output channels, each so small that its
// transformed weights stay in the L2 cache. Transforming an image again for each part costs less
// than reading the weights from farther away. Every 3×3 square of a larger kernel is its own part.

#include "../common/parallel.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Ranges of vectors of input and of output channels, and the number of the square.
struct Part {
    Range in, out;
    int64_t square;

    // Whether this part comes first for its output channels.
    bool is_first() const { return !in.begin && !square; }
};

// Size of nearly equal parts of at most `limit` vectors.
inline int64_t even_part(int64_t vectors, int64_t limit) {
    const int64_t parts = (vectors + limit - 1) / limit;
    return (vectors + parts - 1) / parts;
}

struct Parts {
    int64_t ins, outs, squares, in_part, out_part;

    template <typename F>
    void each(F f) const {
        for (int64_t o = 0; o < outs; o += out_part)
            for (int64_t square = 0; square < squares; ++square)
                for (int64_t i = 0; i < ins; i += in_part)
                    f(Part{{i, least(ins, i + in_part)}, {o, least(outs, o + out_part)}, square});
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
