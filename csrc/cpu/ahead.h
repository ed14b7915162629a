#pragma once

// Lines of images are asked for while products run, block by block: else they would come from
// memory just when they are needed.

#include "channels.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

#ifndef FAIGFAST_ASK  // tests read it, to see that it is there
#define FAIGFAST_ASK(line) __builtin_prefetch(line, 0, 2)
#endif

// Has a line brought into the second cache.
inline void ask(const float* line) {
    FAIGFAST_ASK(line);
    __asm__ volatile("" : : "r"(line));  // the compiler leaves out loops without an effect
}

// Some vectors of the pixels of tiles, in images of some height. Of what lies around a tile,
// `margin` pixels on every side, most came with tiles before it, and is not asked for again.
struct Ahead {
    Channels channels;
    int64_t height;
    Range vs;
    int64_t margin, below, beside;  // where tiles are read: so far from where they stand

    // images: where those of the point begin.
    void ask_for(const float* images, const Place& place) const {
        constexpr int64_t line = 16 / kLanes;  // in vectors, where they lie side by side
        const Range rows = side(place.y, below, height);
        const Range columns = side(place.x, beside, channels.width);
        const float* image = images + place.sample * height * channels.row();
        for (int64_t y = rows.begin; y < rows.end; ++y)
            for (int64_t x = columns.begin; x < columns.end; ++x) {
                const float* pixel = image + y * channels.row() + x * channels.pixel();
                channels.each_vector(vs, [&](int64_t v, int64_t offset, int) {
                    if (channels.groups > 1 || (v - vs.begin) % line == 0) ask(pixel + offset);
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
