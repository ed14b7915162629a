#pragma once

// Weight and bias gradients of a convolution with few input channels: sums over pixels of the
// patches of x (im2col) ⊗ gy. With few output channels Winograd is no slower, since memory limits
// both.

#include "../common/image_gradients.h"
#include "thin_rows.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

class ThinGradient {
public:
    ThinGradient(const PathConvolution& path, const BackwardArrays& arrays, const float* slopes)
        : path_(path),
          arrays_(arrays),
          slopes_(slopes),
          in_(path.inputs, path.width, 1, arrays.x_pixel),
          out_(path.outputs, path.width, path.shuffle),
          depth_(9 * in_.group) {}

    bool applies() const { return is_thin(in_) && path_.is_same_3x3() && !arrays_.gs; }

    // Rows of one image at all points.
    int64_t rows() const { return path_.points * (path_.samples / arrays_.images) * path_.height; }
    int64_t size() const {
        return (depth_ + 1) * out_.padded + kStrip * (depth_ + out_.padded) +
               PaddedRows::size(path_.width, in_.group);
    }

    // Adds the gradients of some rows of an image.
    void add_rows(float* room, int64_t image, Range rows, const ImageGradients& to) const {
        float *sums = room, *biases = sums + depth_ * out_.padded;
        float *patches = biases + out_.padded, *pixels = patches + kStrip * depth_;
        const PaddedRows window{path_.width, in_.group, pixels + kStrip * out_.padded};
        for (float* at = sums; at < patches; ++at) *at = 0;
        const int64_t each = path_.samples / arrays_.images;
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            RowPlace place(row, each, path_.height);
            place.sample += image * each;
            window.advance(place, row == rows.begin, path_.height,
                           [&](int64_t y) { read_row(place, y, window); });
            for (int64_t first = 0; first < path_.width; first += kStrip) {
                const int64_t count = least(kStrip, path_.width - first);
                window.patches(place.y, first, count, patches);
                add_strip(place, first, count, patches, pixels, sums, biases);
            }
        }
        write(sums, biases, to);
    }

private:
    void read_row(const RowPlace& place, int64_t y, const PaddedRows& window) const {
        const PixelReader x{GradientMask::none, in_, arrays_.x, nullptr, 1, nullptr};
        const int64_t at =
            place.point * arrays_.x_point + (place.sample * path_.height + y) * in_.row();
        x.read_to(at, path_.width, window.row(y), window.pixel);
    }

    void add_strip(const RowPlace& place, int64_t first, int64_t count, const float* patches,
                   float* pixels, float* sums, float* biases) const {
        const PixelReader gy{mask_of(path_), out_,        arrays_.gy,
                             arrays_.saved,  path_.scale, slopes_ + place.point * out_.padded};
        const int64_t sample = place.point * path_.samples + place.sample;
        const int64_t at = (sample * path_.height + place.y) * out_.row() + first * out_.pixel();
        gy.read_to(at, count, pixels, out_.padded);
        if (arrays_.gb) add_rows_to(biases, pixels, count, out_.padded, out_.padded);
        for (int64_t v = 0; v < out_.vectors && arrays_.gw; v += kColumns)
            multiply_panel<true>({patches, 1, depth_, pixels + v * kLanes, out_.padded,
                                  sums + v * kLanes, out_.padded, count},
                                 depth_, least(kColumns, out_.vectors - v));
    }

    void write(const float* sums, const float* biases, const ImageGradients& to) const {
        for (int64_t j = 0; j < out_.columns(); ++j) {
            const int64_t o = out_.channel(j);
            if (o < 0) continue;
            if (to.gb) to.gb[o] = biases[j];
            for (int64_t k = 0; k < depth_ && to.gw; ++k)  // [9, in]
                to.gw[(o * in_.group + k % in_.group) * 9 + k / in_.group] =
                    sums[k * out_.padded + j];
        }
    }

    const PathConvolution& path_;
    const BackwardArrays& arrays_;
    const float* slopes_;  // [points, padded]
    const Channels in_, out_;
    const int64_t depth_;
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
