#pragma once

// The input gradient of a convolution with stride 1: products of gy and the transposed weights of a
// point, tap by tap.

#include "../direct/output_writer.h"
#include "blocks.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

class Bf16InputGradient {
public:
    Bf16InputGradient(const Convolution& conv, GradientMask mask, float* room)
        : conv_(conv),
          mask_(mask),
          taps_(conv.path.kernel, true),
          shape_(shape(conv, taps_)),
          steps_(depth(conv) / kTileDepth),
          products_(room),
          weights_((Bf16*)(products_ + 2 * kProducts)),
          block_(weights_ + panels(conv) * taps_.count * steps_ * kTileSize) {}

    static int64_t size(const Convolution& conv, GradientMask) {
        const Taps taps(conv.path.kernel, true);
        const BlockShape shape = Bf16InputGradient::shape(conv, taps);
        const int64_t numbers = panels(conv) * taps.count * depth(conv) * kTileRows +
                                (shape.flat() + taps.shift_beyond(shape.pitch)) * depth(conv);
        return 2 * kProducts + numbers / 2;
    }

    // Rows of a point.
    static int64_t units(const Convolution& conv) { return conv.path.samples * conv.tiles.height; }

    // Interpolates γ(α) as tiles [panel][tap][step]: pairs of columns of gy, and 16 inputs.
    void begin_point(int64_t point) const {
        const PathConvolution& path = conv_.path;
        const int64_t of_output = taps_.side * taps_.side;
        const int64_t of_panel = taps_.count * steps_ * kTileSize;
        for (int64_t k = 0; k < steps_ * kTileDepth; k += 2) {
            int64_t o[2];
            for (int i = 0; i < 2; ++i)
                o[i] = k + i < conv_.in.padded ? conv_.in.channel(k + i) : -1;
            for (int64_t panel = 0; panel < panels(conv_); ++panel)
                for (int64_t tap = 0; tap < taps_.count; ++tap) {
                    alignas(64) Bf16 rows[2][kTileRows];
                    for (int i = 0; i < 2; ++i) {
                        const int64_t row = tap / of_output * path.outputs * of_output +
                                            tap % of_output + o[i] * of_output;
                        interpolate(point, o[i] < 0 ? -1 : row * path.inputs, panel, rows[i]);
                    }
                    Bf16* to =
                        weights_ + panel * of_panel + (tap * steps_ * kTileDepth + k) * kTileRows;
                    for (int64_t i = 0; i < kTileRows; ++i)
                        to[2 * i] = rows[0][i], to[2 * i + 1] = rows[1][i];
                }
        }
    }

    // Computes some rows of gx, counted through samples.
    void run(int64_t point, Range rows) const {
        const TileSession session;
        const int64_t height = conv_.tiles.height;
        each_point(rows, height, [&](int64_t sample, Range ys) {
            shape_.each(ys, [&](int64_t y, int64_t x, int64_t high, int64_t wide) {
                read_block(point, sample, y, x, high, wide);
                with_epilogue(conv_.epilogue(), [&](auto epilogue) {
                    const OutputWriter<epilogue.value> writer(conv_, conv_.stores_nontemporal(),
                                                              point);
                    multiply(writer, (sample * height + y) * shape_.width + x, high, wide);
                });
            });
        });
    }

private:
    static int64_t depth(const Convolution& conv) { return round_up(conv.in.padded, kTileDepth); }
    static int64_t panels(const Convolution& conv) {
        return round_up(conv.out.group, kTileRows) / kTileRows;
    }
    static BlockShape shape(const Convolution& conv, const Taps& taps) {
        return {taps, conv.out.width, kNumbers / depth(conv)};
    }
    static constexpr int64_t kNumbers = 1 << 16;  // of a block, 128 KB

    // 16 weights of a row, zero after its end; at: −1 for a row of zeros.
    void interpolate(int64_t point, int64_t at, int64_t panel, Bf16* to) const {
        const PathConvolution& path = conv_.path;
        for (int64_t l = 0; l < kTileRows; l += kLanes) {
            const int64_t i = panel * kTileRows + l;
            const int lanes = (int)least(kLanes, path.inputs - i);
            Vec value = {};
            if (at >= 0 && lanes > 0) {
                value = read(path.w0 + at + i, lanes);
                if (path.dw) value += path.alpha[point] * read(path.dw + at + i, lanes);
            }
            store(to + l, value);
        }
    }

    void read_block(int64_t point, int64_t sample, int64_t y, int64_t x, int64_t high,
                    int64_t wide) const {
        const PixelReader pixels = conv_.image(mask_, point, sample);
        const BlockReader reader{pixels, 0, conv_.in_height, steps_ * kTileDepth};
        reader.read({y + taps_.top, y + taps_.top + high + taps_.down},
                    {x + taps_.left, x + taps_.left + wide + taps_.across}, shape_.pitch, block_,
                    nullptr);
    }

    // Products of flat pixels [begin, end) and of some channels, in one of two places.
    struct WrittenPart {
        const float* at;
        int64_t channel, channels, begin, end;
    };

    // A block's products are written while the next ones are multiplied.
    template <typename Writer>
    void multiply(const Writer& writer, int64_t first, int64_t high, int64_t wide) const {
        const int64_t depth = steps_ * kTileDepth, count = (high - 1) * shape_.pitch + wide;
        const int64_t all = taps_.count * steps_, out_panels = panels(conv_);
        WrittenPart before{};
        for (int64_t panel = 0; panel < out_panels; panel += 2) {
            const int64_t across = least(2, out_panels - panel);
            const Bf16* weights = weights_ + panel * all * kTileSize;
            for (int64_t at = 0; at < count; at += 2 * kTileRows) {
                float* c = before.at == products_ ? products_ + kProducts : products_;
                const TileProducts products{
                    {{c, c + kTileRows},
                     {c + kTileRows * kProductRow, c + kTileRows * kProductRow + kTileRows}},
                    kProductRow,
                    depth,
                    2 * kTileRows,
                    false};
                int64_t tap = -1, step = steps_ - 1;
                const Bf16* pixels = nullptr;
                multiply_tiles(
                    count - at > kTileRows ? 2 : 1, across, all, products, [&](int64_t number) {
                        if (++step == steps_) {
                            step = 0;
                            pixels = block_ + (at + taps_.shift(++tap, shape_.pitch)) * depth;
                        }
                        const Range some = share(before.end - before.begin, (int)number, (int)all);
                        write(writer, before, some, first, wide);
                        const Bf16* a = pixels + step * kTileDepth;
                        const Bf16* b = weights + number * kTileSize;
                        return Tiles2{{a, a + kTileRows * depth}, {b, b + all * kTileSize}};
                    });
                before = {c, panel * kTileRows, across * kTileRows, at,
                          least(at + 2 * kTileRows, count)};
            }
        }
        write(writer, before, {0, before.end - before.begin}, first, wide);
    }

    // Writes some pixels of a part; `first` is the number of the block's first pixel.
    template <typename Writer>
    void write(const Writer& writer, const WrittenPart& part, Range some, int64_t first,
               int64_t wide) const {
        const int64_t last = least(part.channel + part.channels, conv_.out.group);
        for (int64_t i = some.begin; i < some.end;) {
            const int64_t flat = part.begin + i;
            const int64_t row = (int32_t)flat / (int32_t)shape_.pitch;
            const int64_t column = flat - row * shape_.pitch;
            const int64_t run = least(some.end - i, wide - column);
            const int64_t pixel = first + row * shape_.width + column;
            for (int64_t c = part.channel; c < last && run > 0; c += kLanes) {
                const auto output = writer.column(c, (int)least(kLanes, last - c));
                const float* from = part.at + i * kProductRow + c - part.channel;
                for (int64_t p = 0; p < run; ++p)
                    output.write(load(from + p * kProductRow), pixel + p);
            }
            i += run < some.end - i ? shape_.pitch - column : run;
        }
    }

    static constexpr int64_t kProductRow = 2 * kTileRows, kProducts = 2 * kTileRows * kProductRow;

    const Convolution& conv_;
    const GradientMask mask_;
    const Taps taps_;
    const BlockShape shape_;
    const int64_t steps_;  // of a tap
    float* const products_;
    Bf16 *const weights_, *const block_;
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
