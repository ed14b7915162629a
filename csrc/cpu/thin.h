#pragma once

// Convolutions with few channels on one side, as those next to an image have them. Winograd's
// transforms would be of vectors that are nearly empty: here all taps of a few channels together
// are the rows, or the columns, of one product of matrices.

#include "gate.h"
#include "gemm.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int64_t kThin = 4;    // channels
constexpr int64_t kStrip = 48;  // pixels of a row that are multiplied at once

// Only where vectors are so wide that most of them would be empty: elsewhere most took longer.
inline bool is_thin(const Channels& channels) {
    return kLanes == 16 && channels.groups == 1 && channels.group <= kThin;
}

// Rows of images, as a thread goes through them.
struct RowPlace {
    int64_t point, sample, y;

    RowPlace(int64_t row, int64_t samples, int64_t height)
        : point(row / height / samples), sample(row / height % samples), y(row % height) {}
};

// Three rows of some floats a pixel, with a pixel of zeros on either side, one above the other.
struct ThreeRows {
    int64_t width, pixel;
    float* rows;

    static int64_t size(int64_t width, int64_t pixel) { return 3 * (width + 2) * pixel; }

    // Where pixel 0 of a row stands.
    float* row(int64_t y) const { return rows + ((y + 3) % 3 * (width + 2) + 1) * pixel; }

    // Holds what lies around a row, by take(y): rows come one after the other, and `anew` where a
    // thread begins.
    template <typename Take>
    void go_to(const RowPlace& place, bool anew, int64_t height, Take take) const {
        if (anew || place.y == 0) {
            for (int64_t i = 0; i < size(width, pixel); ++i) rows[i] = 0;
            if (place.y > 0) take(place.y - 1);
            take(place.y);
        }
        if (place.y + 1 < height)
            take(place.y + 1);
        else
            for (int64_t i = 0; i < width * pixel; ++i) row(place.y + 1)[i] = 0;
    }

    // The nine pixels around each of some pixels of a row, [count, 9, pixel].
    void patches(int64_t y, int64_t first, int64_t count, float* to) const {
        for (int64_t i = 0; i < count; ++i)
            for (int64_t dy = -1; dy <= 1; ++dy, to += 3 * pixel)
                copy(row(y + dy) + (first + i - 1) * pixel, to, 3 * pixel);
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
