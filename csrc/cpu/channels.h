#pragma once

// Where the channels of a pixel lie, in images and in the padded columns of the kernels.

#include "parallel.h"
#include "vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// An image of `count` channels, which a pixel shuffle may have spread: channel c·shuffle² + g is
// then channel c of the g-th pixel of a square. Columns take one such group after the other, each
// padded to whole vectors.
struct Channels {
    int64_t width, shuffle, groups, group;  // group: channels of one group
    int64_t group_vectors, vectors, padded;

    Channels(int64_t count, int64_t width, int64_t shuffle)
        : width(width),
          shuffle(shuffle),
          groups(shuffle * shuffle),
          group(count / groups),
          group_vectors(round_up(group, kLanes) / kLanes),
          vectors(groups * group_vectors),
          padded(vectors * kLanes) {}

    // Columns that hold something, but for gaps between groups.
    int64_t columns() const { return groups == 1 ? group : padded; }

    // Floats from one pixel of the unshuffled image to the one below, and to the next.
    int64_t row() const { return groups * width * group; }
    int64_t pixel() const { return shuffle * group; }

    // Calls f(v, offset, lanes) for every vector of a pixel: its number, how far it lies from the
    // pixel, and how many of its lanes are channels.
    template <typename F>
    void each_vector(F f) const {
        int64_t v = 0;
        for (int64_t y = 0; y < shuffle; ++y)
            for (int64_t x = 0; x < shuffle; ++x) {
                const int64_t start = (y * width * shuffle + x) * group;
                int64_t c = 0;
                for (; c + kLanes <= group; c += kLanes) f(v++, start + c, kLanes);
                if (c < group) f(v++, start + c, (int)(group - c));
            }
    }

    // Channel of a column, −1 in a gap.
    int64_t channel(int64_t column) const {
        const int64_t within = column % (group_vectors * kLanes);
        return within < group ? within * groups + column / (group_vectors * kLanes) : -1;
    }
};

// Tiles of an image of height × width.
struct Tiles {
    int64_t height, width, across, count;

    Tiles(int64_t height, int64_t width, int64_t size)
        : height(height),
          width(width),
          across((width + size - 1) / size),
          count((height + size - 1) / size * across) {}
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
