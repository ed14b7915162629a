#pragma once

// Software prefetch of image lines, a few between the products of a block: otherwise they would
// come from memory only when the next block reads them.

#include "../common/channels.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

#ifndef FAIGFAST_PREFETCH  // tests read the line instead, to prove that its memory exists
#define FAIGFAST_PREFETCH(line) __builtin_prefetch(line, 0, 2)
#endif

// Prefetches a line into the L2 cache.
inline void prefetch(const float* line) {
    FAIGFAST_PREFETCH(line);
    __asm__ volatile("" : : "r"(line));  // the compiler removes loops without an effect
}

// Prefetches some vectors of the pixels of tiles. A tile is read with `margin` pixels of halo on
// every side; neighbouring tiles brought most of the halo already, so it is not prefetched again.
struct Prefetch {
    Channels channels;
    int64_t height;
    Range vs;
    int64_t margin, row_offset, column_offset;  // from a tile's place to the pixels it reads

    // `images` is the address of the first image at the point.
    void tile(const float* images, const Place& place) const {
        constexpr int64_t line = 16 / kLanes;  // vectors of a cache line
        const Range rows = side(place.y, row_offset, height);
        const Range columns = side(place.x, column_offset, channels.width);
        const float* image = images + place.sample * height * channels.row();
        for (int64_t y = rows.begin; y < rows.end; ++y)
            for (int64_t x = columns.begin; x < columns.end; ++x) {
                const float* pixel = image + y * channels.row() + x * channels.pixel();
                channels.each_vector(vs, [&](int64_t v, int64_t offset, int) {
                    if (channels.groups > 1 || (v - vs.begin) % line == 0) prefetch(pixel + offset);
                });
            }
    }

private:
    Range side(int64_t begin, int64_t shift, int64_t end) const {
        const int64_t first = begin + shift;
        return {most(0, begin > 0 ? first + margin : first - margin),
                least(first + kTile + margin, end)};
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
