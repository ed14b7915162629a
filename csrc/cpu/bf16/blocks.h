#pragma once

// Blocks of an image as flat rows of bfloat16: each row of pixels is followed by the columns that
// its taps reach beyond it, so that a tap is one shift of the whole block.

#include "../common/activation_gradient.h"
#include "tiles.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// The taps of a kernel: rows and columns from a pixel of y to the pixel of x that it reads; of an
// input gradient the other way round.
struct Taps {
    const Kernel& kernel;
    const int64_t count, side;  // side: taps down and across of a square
    const bool gradient;
    int64_t top, left, down, across;  // of the first row and column, and how many more there are

    Taps(const Kernel& kernel, bool gradient)
        : kernel(kernel),
          count(kernel.taps()),
          side(kernel.kind == Kind::squares ? 3 : 1),
          gradient(gradient) {
        down = side * kernel.down - 1, across = side * kernel.across - 1;
        top = gradient ? kernel.pad_y - down : -kernel.pad_y;
        left = gradient ? kernel.pad_x - across : -kernel.pad_x;
    }

    // The largest shift.
    int64_t shift_beyond(int64_t pitch) const { return down * pitch + across; }

    // Distance of a tap from the first row and column, in a block of `pitch` columns.
    int64_t shift(int64_t tap, int64_t pitch) const {
        const int64_t square = tap / (side * side), within = tap % (side * side);
        const int64_t row = square / kernel.across * side + within / side;
        const int64_t column = square % kernel.across * side + within % side;
        return gradient ? (down - row) * pitch + across - column : row * pitch + column;
    }
};

// How an image of height × width is cut: strips of columns, and in these blocks of rows.
struct BlockShape {
    int64_t width, strip, rows, pitch;

    // pixels: of a block, about.
    BlockShape(const Taps& taps, int64_t width, int64_t pixels) : width(width) {
        const int64_t strips = (width + kMostWide - 1) / kMostWide;
        strip = (width + strips - 1) / strips;
        pitch = strip + taps.across;
        rows = most(2 * taps.down + 2, pixels / pitch);
    }

    // Pixels of a whole block, in whole pairs of tiles.
    int64_t flat() const { return round_up((rows - 1) * pitch + strip, 2 * kTileRows); }

    // Calls f(y, x, high, wide) for the blocks of some rows.
    template <typename F>
    void each(Range ys, F f) const {
        for (int64_t x = 0; x < width; x += strip)
            for (int64_t y = ys.begin; y < ys.end; y += rows)
                f(y, x, least(rows, ys.end - y), least(strip, width - x));
    }

private:
    static constexpr int64_t kMostWide = 96;
};

// Reads parts of one sample as pixels [depth] of bfloat16, zero outside of the image.
struct BlockReader {
    const PixelReader& from;
    int64_t sample;  // offset of the first pixel
    int64_t height, depth;

    // Reads rows `ys` and columns `xs`, `pitch` pixels of `to` from row to row. Adds to `totals`
    // [padded], or null, the sums over pixels before they are rounded.
    void read(Range ys, Range xs, int64_t pitch, Bf16* to, float* totals) const {
        for (int64_t y = ys.begin; y < ys.end; ++y, to += pitch * depth)
            read_row(y, xs, pitch, to, totals);
    }

    // Reads one row, and clears what is left of its pitch.
    void read_row(int64_t y, Range xs, int64_t pitch, Bf16* to, float* totals) const {
        const Channels& channels = from.channels;
        const bool inside = y >= 0 && y < height;
        const int64_t begin = inside ? least(most(xs.begin, 0), xs.end) : xs.end;
        const int64_t end = inside ? most(begin, least(xs.end, channels.width)) : xs.end;
        if (channels.padded < depth) clear(to, pitch);
        clear(to, begin - xs.begin);
        if (begin < end) {
            const int64_t at = sample + y * channels.row() + begin * channels.pixel();
            with_mask(from.mask, [&](auto mask) {
                round<mask.value>(at, end - begin, to + (begin - xs.begin) * depth, totals);
            });
        }
        clear(to + (end - xs.begin) * depth, xs.begin + pitch - end);
    }

private:
    void clear(Bf16* to, int64_t pixels) const {
        if (pixels > 0) __builtin_memset(to, 0, pixels * depth * sizeof *to);
    }

    template <GradientMask kMask>
    void round(int64_t at, int64_t count, Bf16* to, float* totals) const {
        constexpr bool reads_saved = kMask >= GradientMask::relu;
        const int64_t pixel = from.channels.pixel();
        from.channels.each_vector([&](int64_t v, int64_t offset, int lanes) {
            const float* values = from.values + at + offset;
            const float* saved = reads_saved ? from.saved + at + offset : nullptr;
            const Vec slope = kMask == GradientMask::leaky ? load(from.slopes + v * kLanes) : Vec{};
            Vec total = {};
            const auto put = [&](int64_t i, Vec value, Vec z) {
                value = masked<kMask>(value, z, from.scale, slope);
                total += value;
                store(to + i * depth + v * kLanes, value);
            };
            if (lanes == kLanes)
                for (int64_t i = 0; i < count; ++i, values += pixel) {
                    put(i, load(values), reads_saved ? load(saved) : Vec{});
                    if (reads_saved) saved += pixel;
                }
            else
                for (int64_t i = 0; i < count; ++i, values += pixel) {
                    put(i, load(values, lanes), reads_saved ? load(saved, lanes) : Vec{});
                    if (reads_saved) saved += pixel;
                }
            if (totals) store(totals + v * kLanes, load(totals + v * kLanes) + total);
        });
    }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
