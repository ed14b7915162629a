#pragma once

// A path convolution, or its input gradient, with few output channels; row by row.

#include "../memory.h"
#include "output_writer.h"
#include "thin_rows.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Interpolates the taps of γ(α), [9, in, out] as winograd/weights.h packs them.
inline void interpolate(const Convolution& conv, int64_t point, float* taps) {
    const PathConvolution& path = conv.path;
    const float alpha = path.alpha[point];
    const int64_t size = 9 * conv.in.columns() * conv.out.padded;
    for (int64_t i = 0; i < size; i += kLanes) {
        Vec w = load(path.w0 + i);
        if (path.dw) w += alpha * load(path.dw + i);
        store(taps + i, w);
    }
}

// Multiplies all columns of a product.
inline void multiply_all(Operands o, int64_t rows, int64_t vectors) {
    for (int64_t v = 0; v < vectors; v += kColumns, o.b += kPanel, o.c += kPanel)
        multiply_panel<false>(o, rows, least(kColumns, vectors - v));
}

// Multiplies pixels [pixels, in] by taps [in, 9·out]; every output pixel then adds its nine parts
// (col2im).
class ThinConvolution {
public:
    ThinConvolution(const Convolution& conv, GradientMask mask, float* room)
        : conv_(conv),
          mask_(mask),
          columns_(columns(conv)),
          packed_(room),
          taps_(packed_ + 9 * conv.in.columns() * conv.out.padded),
          pixels_(taps_ + conv.in.columns() * columns_),
          rows_{conv.tiles.width, columns_, pixels_ + kStrip * conv.in.padded} {}

    static int64_t columns(const Convolution& conv) { return round_up(9 * conv.out.group, kLanes); }
    static int64_t size(const Convolution& conv) {
        const int64_t in = conv.in.columns();
        return in * (9 * conv.out.padded + columns(conv)) + kStrip * conv.in.padded +
               PaddedRows::size(conv.tiles.width, columns(conv));
    }

    void begin_point(int64_t point) {
        interpolate(conv_, point, packed_);
        const int64_t in = conv_.in.columns(), padded = conv_.out.padded, few = conv_.out.group;
        for (int64_t k = 0; k < in; ++k)
            for (int64_t j = 0; j < columns_; ++j)
                taps_[k * columns_ + j] =
                    j < 9 * few ? packed_[(j / few * in + k) * padded + j % few] : 0;
    }
    void advance(const RowPlace& place, bool restart) const {
        rows_.advance(place, restart, conv_.tiles.height,
                      [&](int64_t y) { multiply_row(place, y); });
    }

    // Writes an output row.
    void write_row(const RowPlace& place) const {
        with_epilogue(conv_.epilogue(), [&](auto epilogue) { write_row<epilogue.value>(place); });
    }

private:
    template <Epilogue kEpilogue>
    void write_row(const RowPlace& place) const {
        const Convolution& conv = conv_;
        const int64_t width = conv.tiles.width, few = conv.out.group;
        const int64_t first = (place.sample * conv.tiles.height + place.y) * width;
        const OutputWriter<kEpilogue> writer(conv, false, place.point);
        const auto output = writer.column(0, (int)few);
        for (int64_t c = 0; c < width; ++c) {
            Vec value = {};
            for (int64_t tap = 0; tap < 9; ++tap) {
                const float* there =
                    rows_.row(place.y + tap / 3 - 1) + (c + tap % 3 - 1) * columns_;
                value += load(there + tap * few, (int)few);
            }
            output.write(value, first + c);
        }
    }

    // Multiplies an input row.
    void multiply_row(const RowPlace& place, int64_t y) const {
        const Channels& in = conv_.in;
        const int64_t start =
            place.point * conv_.values_point + place.sample * conv_.values_sample + y * in.row();
        const PixelReader from{mask_,
                               in,
                               conv_.values,
                               conv_.saved,
                               conv_.path.scale,
                               conv_.slopes + place.point * in.padded};
        const bool plain = mask_ == GradientMask::none && in.groups == 1;
        for (int64_t first = 0; first < conv_.tiles.width; first += kStrip) {
            const int64_t count = least(kStrip, conv_.tiles.width - first);
            const int64_t at = start + first * in.pixel();
            if (!plain) from.read_to(at, count, pixels_, in.padded);
            multiply_all({plain ? conv_.values + at : pixels_, plain ? in.pixel() : in.padded, 1,
                          taps_, columns_, rows_.row(y) + first * columns_, columns_, in.columns()},
                         count, columns_ / kLanes);
        }
    }

    const Convolution& conv_;
    const GradientMask mask_;
    const int64_t columns_;
    float *const packed_, *const taps_, *const pixels_;
    const PaddedRows rows_;
};

// Calls run(work), where every thread calls work(): rows of all images at all points, for which it
// also reads one row above and below.
template <typename Run>
void convolve_thin(const Convolution& conv, GradientMask mask, Run run) {
    const PathConvolution& path = conv.path;
    const int64_t height = conv.tiles.height, total = path.points * path.samples * height;
    const int64_t size = round_up(ThinConvolution::size(conv), 16) + 16;
    const Scratch scratch(4 * path.threads * size);
    const Shares shares(total, least(height, 16), path.threads);

    run([&] {
        const int id = thread_id();
        ThinConvolution rows(conv, mask, scratch.floats() + id * size);
        int64_t point = -1;
        shares.each(id, [&](Range some) {
            for (int64_t row = some.begin; row < some.end; ++row) {
                const RowPlace place(row, path.samples, height);
                if (place.point != point) rows.begin_point(point = place.point);
                rows.advance(place, row == some.begin);
                rows.write_row(place);
            }
        });
    });
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
