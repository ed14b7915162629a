#pragma once

// Rows of images that a kernel goes over, one after the other.

#include "pass.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// The last few rows of an image, read through its gate, with whole vectors of zeros behind the
// channels; or, where they are not copied, rows where they stand.
class KeptRows {
public:
    KeptRows(bool copied, const Channels& channels, int64_t height, int64_t kept, float* room)
        : copied_(copied), channels_(channels), height_(height), kept_(kept), room_(room) {}

    // A vector more than the rows hold: one may be read that begins in the last.
    static int64_t size(bool copied, const Channels& channels, int64_t kept) {
        return copied ? kept * channels.width * channels.padded + kLanes : 0;
    }

    // Goes to an image, which lasts until the next one; nothing of the one before is kept.
    void go_to(const GatedRow& image) {
        image_ = &image;
        end_ = 0;
    }
    // Reads row y and those before it that are kept; y never falls in an image.
    void read_until(int64_t y) {
        if (!copied_) return;
        for (end_ = most(end_, y + 1 - kept_); end_ <= least(y, height_ - 1); ++end_)
            image_->read_to(end_ * channels_.row(), channels_.width, place(end_), channels_.padded);
    }

    // Calls give(sample, y) for some rows of what comes out of all samples at a point, when what
    // they need of what goes in is read, the last of it row last(y).
    template <typename Last, typename Give>
    void go_through(const Pass& pass, Gate gate, int64_t point, Range rows, Last last, Give give) {
        const int64_t height = pass.tiles.height;
        each_point(rows, height, [&](int64_t sample, Range some) {
            const GatedRow image = pass.image(gate, point, sample);
            go_to(image);
            for (int64_t y = some.begin; y < some.end; ++y) {
                read_until(last(y));
                give(sample, y);
            }
        });
    }

    const float* row(int64_t y) const {
        return copied_ ? place(y) : image_->values + y * channels_.row();
    }
    int64_t pixel() const { return copied_ ? channels_.padded : channels_.pitch; }

private:
    float* place(int64_t y) const { return room_ + y % kept_ * channels_.width * channels_.padded; }

    const bool copied_;
    const Channels& channels_;
    const int64_t height_, kept_;
    float* const room_;
    const GatedRow* image_ = nullptr;
    int64_t end_ = 0;  // of the rows that were read
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
