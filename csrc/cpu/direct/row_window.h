#pragma once

// A window of rows that rolls down an image.

#include "../common/convolution.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// The last few rows of an image, read through its mask and padded with zeros to whole vectors of
// channels. Where no copy is needed, the rows stay in the image.
class RowWindow {
public:
    RowWindow(bool copied, const Channels& channels, int64_t height, int64_t kept, float* room)
        : copied_(copied), channels_(channels), height_(height), kept_(kept), room_(room) {}

    // One vector more than the rows hold: a kernel may read a vector that begins in the last one.
    static int64_t size(bool copied, const Channels& channels, int64_t kept) {
        return copied ? kept * channels.width * channels.padded + kLanes : 0;
    }

    // Begins an image with an empty window; the reader must outlive its use here.
    void begin_image(const PixelReader& image) {
        image_ = &image;
        end_ = 0;
    }
    // Rolls the window down until row y is its last; y never decreases within an image.
    void read_until(int64_t y) {
        if (!copied_) return;
        for (end_ = most(end_, y + 1 - kept_); end_ <= least(y, height_ - 1); ++end_)
            image_->read_to(end_ * channels_.row(), channels_.width, place(end_), channels_.padded);
    }

    // Calls write(sample, y) for some output rows of all samples at a point, once the window holds
    // the input rows that row y reads; last(y) is the last of them.
    template <typename Last, typename Write>
    void each_row(const Convolution& conv, GradientMask mask, int64_t point, Range rows, Last last,
                  Write write) {
        const int64_t height = conv.tiles.height;
        each_point(rows, height, [&](int64_t sample, Range some) {
            const PixelReader image = conv.image(mask, point, sample);
            begin_image(image);
            for (int64_t y = some.begin; y < some.end; ++y) {
                read_until(last(y));
                write(sample, y);
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
    const PixelReader* image_ = nullptr;
    int64_t end_ = 0;  // one past the last row read
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
