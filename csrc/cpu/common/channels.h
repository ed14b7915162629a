#pragma once

// The layout of channels: in images, which may be shuffled, and in the padded columns of kernels.

#include "parallel.h"
#include "vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// An image of `count` channels, which a pixel shuffle may have spread over squares of pixels:
// channel c·shuffle² + g is then channel c of the g-th pixel of a square. The channels of one g
// form a group; columns hold group after group, each padded to whole vectors.
struct Channels {
    int64_t width, shuffle, groups, group;  // group: channels of one group
    int64_t group_vectors, vectors, padded;
    int64_t pitch;  // floats from one pixel to the next: the number of channels, or more

    Channels(int64_t count, int64_t width, int64_t shuffle, int64_t pitch = 0)
        : width(width),
          shuffle(shuffle),
          groups(shuffle * shuffle),
          group(count / groups),
          group_vectors(round_up(group, kLanes) / kLanes),
          vectors(groups * group_vectors),
          padded(vectors * kLanes),
          pitch(pitch ? pitch : group) {}

    // Columns in use, gaps between groups included.
    int64_t columns() const { return groups == 1 ? group : padded; }

    // Floats from an unshuffled pixel to the one below it, and to the next one in its row.
    int64_t row() const { return groups * width * pitch; }
    int64_t pixel() const { return shuffle * pitch; }

    // Calls f(v, offset, lanes) for some vectors of a pixel: the number of the vector, its offset
    // from the pixel, and how many of its lanes are channels.
    template <typename F>
    inline void each_vector(Range vs, F f) const {
        if (groups == 1) {
            const int64_t whole = least(group / kLanes, vs.end);
            for (int64_t v = vs.begin; v < whole; ++v) f(v, v * kLanes, kLanes);
            if (whole < vs.end) f(whole, whole * kLanes, (int)(group - whole * kLanes));
            return;
        }
        for (int64_t v = vs.begin; v < vs.end; ++v) {
            const int64_t g = v / group_vectors, c = v % group_vectors * kLanes;
            const int64_t start = (g / shuffle * width * shuffle + g % shuffle) * pitch;
            if (c + kLanes <= group)
                f(v, start + c, kLanes);
            else
                f(v, start + c, (int)(group - c));
        }
    }

    template <typename F>
    inline void each_vector(F f) const {
        each_vector({0, vectors}, f);
    }

    // The channel of a column, −1 in a gap.
    int64_t channel(int64_t column) const {
        const int64_t within = column % (group_vectors * kLanes);
        return within < group ? within * groups + column / (group_vectors * kLanes) : -1;
    }
};

// Sample and first pixel of a tile.
struct Place {
    int64_t sample, y, x;
};

// Tiles of images of height × width, one image after the other.
struct Tiles {
    int64_t height, width, size, across, count;

    Tiles(int64_t height, int64_t width, int64_t size)
        : height(height),
          width(width),
          size(size),
          across((width + size - 1) / size),
          count((height + size - 1) / size * across) {}

    Place place(int64_t tile) const {
        const int64_t at = tile % count;
        return {tile / count, at / across * size, at % across * size};
    }

    // Calls f(place) for some tiles.
    template <typename F>
    void each(Range some, F f) const {
        if (some.size() <= 0) return;
        Place at = place(some.begin);
        for (int64_t tile = some.begin; tile < some.end; ++tile, advance(at)) f(at);
    }

    // Moves to the next tile, without a division.
    void advance(Place& place) const {
        place.x += size;
        if (place.x < width) return;
        place.x = 0;
        place.y += size;
        if (place.y < height) return;
        place.y = 0;
        ++place.sample;
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
