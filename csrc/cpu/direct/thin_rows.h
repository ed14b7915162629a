#pragma once

// Thin convolutions: at most four channels on one side, as in the first and the last layer of a
// network. Winograd would transform vectors that are nearly empty. Here the taps of all channels
// together form the rows, or the columns, of one matrix product.

#include "../common/activation_gradient.h"
#include "../common/gemm.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int64_t kThinChannels = 4;
constexpr int64_t kStrip = 48;  // pixels of a row in one product

// With AVX-512 only: narrower vectors are less empty, and most thin layers took longer this way.
inline bool is_thin(const Channels& channels) {
    return kLanes == 16 && channels.groups == 1 && channels.group <= kThinChannels;
}

// Point, sample and y of a row, where a thread counts rows through all images.
struct RowPlace {
    int64_t point, sample, y;

    RowPlace(int64_t row, int64_t samples, int64_t height)
        : point(row / height / samples), sample(row / height % samples), y(row % height) {}
};

// Three neighbouring rows of `pixel` floats a pixel, with a pixel of zeros at either end.
struct PaddedRows {
    int64_t width, pixel;
    float* rows;

    static int64_t size(int64_t width, int64_t pixel) { return 3 * (width + 2) * pixel; }

    // Address of pixel 0 of row y.
    float* row(int64_t y) const { return rows + ((y + 3) % 3 * (width + 2) + 1) * pixel; }

    // Holds row place.y and its two neighbours, which fill(y) writes. Rows come in order; `restart`
    // marks the first row of a thread.
    template <typename Fill>
    void advance(const RowPlace& place, bool restart, int64_t height, Fill fill) const {
        if (restart || place.y == 0) {
            for (int64_t i = 0; i < size(width, pixel); ++i) rows[i] = 0;
            if (place.y > 0) fill(place.y - 1);
            fill(place.y);
        }
        if (place.y + 1 < height)
            fill(place.y + 1);
        else
            for (int64_t i = 0; i < width * pixel; ++i) row(place.y + 1)[i] = 0;
    }

    // im2col: the 3×3 neighbourhoods of some pixels of row y, as [count, 9, pixel].
    void patches(int64_t y, int64_t first, int64_t count, float* to) const {
        for (int64_t i = 0; i < count; ++i)
            for (int64_t dy = -1; dy <= 1; ++dy, to += 3 * pixel)
                copy(row(y + dy) + (first + i - 1) * pixel, to, 3 * pixel);
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
