#pragma once

// Lines of images asked for while there is something to multiply, so that they are there when tiles
// are read or written.

#include "channels.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Tiles [first, first + count) of the samples of an image; `below` rows further down, since a patch
// begins above its tile and what is above was read for other tiles.
struct Lines {
    const float* image;
    int64_t sample;
    const Channels* channels;
    const Tiles* tiles;
    int64_t first, count, below;
};

// The part-th of `parts` shares.
inline void prefetch(const Lines& lines, int64_t part, int64_t parts) {
    const Channels& channels = *lines.channels;
    const Tiles& tiles = *lines.tiles;
    const int64_t total = lines.count * kTile;
    for (int64_t s = total * part / parts; s < total * (part + 1) / parts; ++s) {
        const int64_t tile = lines.first + s / kTile, at = tile % tiles.count;
        const int64_t y = at / tiles.across * kTile + s % kTile + lines.below;
        const int64_t x = at % tiles.across * kTile;
        if (y >= tiles.height) continue;
        const float* from = lines.image + tile / tiles.count * lines.sample + y * channels.row() +
                            x * channels.pixel();
        const int64_t size = least(kTile, tiles.width - x) * channels.pixel();
        for (int64_t i = 0; i < channels.shuffle; ++i)
            for (int64_t j = 0; j < size; j += 16)
                __builtin_prefetch(from + i * channels.width * channels.pixel() + j, 0, 2);
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
