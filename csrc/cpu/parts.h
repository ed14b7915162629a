#pragma once

// A layer in parts of what goes in and of what comes out, so small that what is made of weights
// stays in the second cache. To transform images again for each part costs less than to read that
// from farther away. Every square of taps is a part of its own.

#include "parallel.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Vectors of channels that go in, and of those that come out; the number of the square.
struct Part {
    Range in, out;
    int64_t square;

    // Whether it is the first one of those that come out.
    bool begins() const { return !in.begin && !square; }
};

// The size of nearly equal parts of at most so many vectors.
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
