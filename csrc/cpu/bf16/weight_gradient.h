#pragma once

// Gradients of weights, biases and slopes of a convolution with stride 1: products of gy and
// shifted x over the pixels of a block, tap by tap.

#include "../common/image_gradients.h"
#include "blocks.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

class Bf16WeightGradient {
public:
    Bf16WeightGradient(const PathConvolution& path, const BackwardArrays& arrays,
                       const float* slopes)
        : path_(path),
          arrays_(arrays),
          slopes_(slopes),
          in_(path.inputs, path.x_width, 1, arrays.x_pixel),
          out_(path.outputs, path.width, path.shuffle),
          taps_(path.kernel, false),
          x_depth_(round_up(in_.padded, kTileRows)),
          g_depth_(round_up(out_.padded, kTileRows)),
          shape_(taps_, path.width, kNumbers / (x_depth_ + g_depth_)),
          g_flat_(round_up(shape_.rows * shape_.pitch, kTileDepth)),
          x_flat_(g_flat_ + round_up(taps_.shift_beyond(shape_.pitch) + 2, 2)) {}

    // Rows of one image at all points.
    int64_t rows() const { return path_.points * (path_.samples / arrays_.images) * path_.height; }

    int64_t size() const {
        return products_size() + 2 * out_.padded +
               (2 * g_flat_ * g_depth_ + (2 * x_flat_ + shape_.pitch + 1) * x_depth_) / 2 + 64;
    }

    void add_rows(float* room, int64_t image, Range rows, const ImageGradients& to) const {
        const TileSession session;
        const Room own(*this, room);
        const int64_t each = path_.samples / arrays_.images;
        each_point(rows, path_.height, [&](int64_t place, Range ys) {
            const int64_t point = place / each, sample = image * each + place % each;
            shape_.each(ys, [&](int64_t y, int64_t x, int64_t high, int64_t wide) {
                add_block(own, point, sample, y, x, high, wide);
            });
        });
        write(own, to);
    }

private:
    static constexpr int64_t kNumbers = 1 << 16;  // of x and gy in a block

    // [tap][outputs / 16][inputs / 16] tiles.
    int64_t products_size() const { return taps_.count * g_depth_ * x_depth_; }

    // Memory of a thread, aligned to cache lines.
    struct Room {
        float *products, *biases, *slopes;
        Bf16 *gy, *transposed, *x, *pairs[2];  // x: the last pixel of a row, and the next row

        Room(const Bf16WeightGradient& of, float* room)
            : products(room + (16 - (uintptr_t)room / 4 % 16) % 16),
              biases(products + of.products_size()),
              slopes(biases + of.out_.padded) {
            float* rest = slopes + of.out_.padded;
            for (float* at = products; at < rest; ++at) *at = 0;
            gy = (Bf16*)(rest + (16 - (uintptr_t)rest / 4 % 16) % 16);
            transposed = gy + of.g_flat_ * of.g_depth_;
            pairs[0] = transposed + of.g_flat_ * of.g_depth_;
            pairs[1] = pairs[0] + of.x_flat_ * of.x_depth_;
            x = pairs[1] + of.x_flat_ * of.x_depth_;
        }
    };

    void add_block(const Room& own, int64_t point, int64_t sample, int64_t y, int64_t x,
                   int64_t high, int64_t wide) const {
        const int64_t flat = round_up((high - 1) * shape_.pitch + wide, kTileDepth);
        read_gradient(own, point, sample, y, x, high, wide, flat);
        if (!arrays_.gw) return;
        read_x(own, point, sample, y, x, high, wide, flat);
        multiply(own, flat / kTileDepth);
    }

    // Reads x as pairs of neighbouring pixels, those that begin at even and at odd ones.
    void read_x(const Room& own, int64_t point, int64_t sample, int64_t y, int64_t x, int64_t high,
                int64_t wide, int64_t flat) const {
        const PixelReader pixels{
            GradientMask::none, in_, arrays_.x + point * arrays_.x_point, nullptr, 1, nullptr};
        const BlockReader reader{pixels, sample * path_.x_height * in_.row(), path_.x_height,
                                 x_depth_};
        const Range columns{x + taps_.left, x + taps_.left + wide + taps_.across};
        const int64_t pairs = flat + taps_.shift_beyond(shape_.pitch) - 1;
        Bf16* last = own.x + shape_.pitch * x_depth_;
        // A row's last pixel is paired with the first one of the next row; rows after the block's
        // are zero.
        for (int64_t row = 0, first = -1; first < pairs; ++row, first += shape_.pitch) {
            copy_pixel(last, own.x);
            const int64_t at = row < high + taps_.down ? y + taps_.top + row : -1;
            reader.read_row(at, columns, shape_.pitch, own.x + x_depth_, nullptr);
            const int64_t skipped = row ? 0 : 1;
            const int64_t count = least(shape_.pitch, pairs - first) - skipped;
            for (int64_t i = 0; i < x_depth_; i += 16)
                pair_pixels(own.x + skipped * x_depth_ + i, x_depth_, first + skipped, count,
                            {own.pairs[0] + 2 * i, own.pairs[1] + 2 * i}, 2 * x_depth_);
        }
    }

    void copy_pixel(const Bf16* from, Bf16* to) const {
        __builtin_memcpy(to, from, x_depth_ * sizeof *to);
    }

    // Reads gy [flat, g_depth], adds its sums to those of biases, and transposes it in blocks of 32
    // pixels.
    void read_gradient(const Room& own, int64_t point, int64_t sample, int64_t y, int64_t x,
                       int64_t high, int64_t wide, int64_t flat) const {
        const int64_t start = (point * path_.samples + sample) * path_.height * out_.row();
        const PixelReader gradient{mask_of(path_), out_,        arrays_.gy,
                                   arrays_.saved,  path_.scale, slopes_ + point * out_.padded};
        const BlockReader reader{gradient, start, path_.height, g_depth_};
        reader.read({y, y + high}, {x, x + wide}, shape_.pitch, own.gy,
                    arrays_.gb ? own.biases : nullptr);
        for (int64_t row = y; row < y + high && arrays_.gs; ++row)
            gradient.add_slopes(start + row * out_.row() + x * out_.pixel(), wide, own.slopes);
        if (!arrays_.gw) return;
        clear(own.gy + high * shape_.pitch * g_depth_, (flat - high * shape_.pitch) * g_depth_);
        for (int64_t q = 0; q < flat; q += kTileDepth)
            for (int64_t o = 0; o < g_depth_; o += kTileRows)
                transpose(own.gy + q * g_depth_ + o, g_depth_,
                          own.transposed + q * g_depth_ + o * kTileDepth);
    }

    static void clear(Bf16* to, int64_t count) {
        if (count > 0) __builtin_memset(to, 0, count * sizeof *to);
    }

    void multiply(const Room& own, int64_t steps) const {
        const int64_t outs = g_depth_ / kTileRows, ins = x_depth_ / kTileRows;
        constexpr int64_t tile = kTileRows * kTileRows;
        for (int64_t o = 0; o < outs; o += 2)
            for (int64_t i = 0; i < ins; i += 2)
                for (int64_t tap = 0; tap < taps_.count; ++tap) {
                    float* c = own.products + ((tap * outs + o) * ins + i) * tile;
                    const TileProducts products{
                        {{c, c + tile}, {c + ins * tile, c + (ins + 1) * tile}},
                        kTileRows,
                        kTileDepth,
                        2 * x_depth_,
                        true};
                    const int64_t shift = taps_.shift(tap, shape_.pitch);
                    const Bf16* a = own.transposed + o * kTileSize;
                    const Bf16* b =
                        own.pairs[shift & 1] + (shift >> 1) * 2 * x_depth_ + i * 2 * kTileRows;
                    multiply_tiles(
                        least(2, outs - o), least(2, ins - i), steps, products, [&](int64_t step) {
                            const Bf16* left = a + step * kTileDepth * g_depth_;
                            const Bf16* right = b + step * kTileDepth * x_depth_;
                            return Tiles2{{left, left + kTileSize}, {right, right + 2 * kTileRows}};
                        });
                }
    }

    // gw is [squares, outputs, inputs, 3, 3], or [outputs, inputs] of a point.
    void write(const Room& own, const ImageGradients& to) const {
        const int64_t outs = g_depth_ / kTileRows, ins = x_depth_ / kTileRows;
        const int64_t within = taps_.side * taps_.side;
        for (int64_t j = 0; j < out_.columns(); ++j) {
            const int64_t o = out_.channel(j);
            if (o < 0) continue;
            if (to.gb) to.gb[o] = own.biases[j];
            if (to.gs) to.gs[o] = own.slopes[j];
            for (int64_t tap = 0; tap < taps_.count && to.gw; ++tap) {
                float* at = to.gw + (tap / within * path_.outputs + o) * path_.inputs * within +
                            tap % within;
                const float* row = own.products +
                                   (tap * outs + j / kTileRows) * ins * kTileRows * kTileRows +
                                   j % kTileRows * kTileRows;
                for (int64_t i = 0; i < path_.inputs; ++i)
                    at[i * within] = row[i / kTileRows * kTileRows * kTileRows + i % kTileRows];
            }
        }
    }

    const PathConvolution& path_;
    const BackwardArrays& arrays_;
    const float* slopes_;  // [points, padded]
    const Channels in_, out_;
    const Taps taps_;
    const int64_t x_depth_, g_depth_;  // numbers of a pixel, whole tiles
    const BlockShape shape_;
    const int64_t g_flat_, x_flat_;  // pixels of a block
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
