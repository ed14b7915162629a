#pragma once

// A path convolution, or its input gradient, of which few channels come out; row by row.

#include "memory.h"
#include "pass.h"
#include "thin.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Taps of γ(α) [9, in, out], as `weights.h` packs them.
inline void interpolate(const Pass& pass, int64_t point, float* taps) {
    const PathConvolution& path = pass.path;
    const float alpha = path.alpha[point];
    const int64_t size = 9 * pass.in.columns() * pass.out.padded;
    for (int64_t i = 0; i < size; i += kLanes) {
        Vec w = load(path.w0 + i);
        if (path.dw) w += alpha * load(path.dw + i);
        store(taps + i, w);
    }
}

// All columns of a product.
inline void multiply_all(Operands o, int64_t rows, int64_t vectors) {
    for (int64_t v = 0; v < vectors; v += kColumns, o.b += kPanel, o.c += kPanel)
        multiply_panel<false>(o, rows, least(kColumns, vectors - v));
}

// A product of the pixels [pixels, in] and the taps [in, 9·out]; of a patch its part of each is
// added.
class ThinOut {
public:
    ThinOut(const Pass& pass, Gate gate, float* room)
        : pass_(pass),
          gate_(gate),
          columns_(columns(pass)),
          packed_(room),
          taps_(packed_ + 9 * pass.in.columns() * pass.out.padded),
          pixels_(taps_ + pass.in.columns() * columns_),
          rows_{pass.tiles.width, columns_, pixels_ + kStrip * pass.in.padded} {}

    static int64_t columns(const Pass& pass) { return round_up(9 * pass.out.group, kLanes); }
    static int64_t size(const Pass& pass) {
        const int64_t in = pass.in.columns();
        return in * (9 * pass.out.padded + columns(pass)) + kStrip * pass.in.padded +
               ThreeRows::size(pass.tiles.width, columns(pass));
    }

    void begin_point(int64_t point) {
        interpolate(pass_, point, packed_);
        const int64_t in = pass_.in.columns(), padded = pass_.out.padded, few = pass_.out.group;
        for (int64_t k = 0; k < in; ++k)
            for (int64_t j = 0; j < columns_; ++j)
                taps_[k * columns_ + j] =
                    j < 9 * few ? packed_[(j / few * in + k) * padded + j % few] : 0;
    }
    void go_to(const RowPlace& place, bool anew) const {
        rows_.go_to(place, anew, pass_.tiles.height, [&](int64_t y) { take_row(place, y); });
    }

    // Stores a row of what comes out.
    void give_row(const RowPlace& place) const {
        with_finish(pass_.finish(), [&](auto finish) { give_row<finish.value>(place); });
    }

private:
    template <Finish kFinish>
    void give_row(const RowPlace& place) const {
        const Pass& pass = pass_;
        const int64_t width = pass.tiles.width, few = pass.out.group;
        const int64_t first = (place.sample * pass.tiles.height + place.y) * width;
        const Ending<kFinish> end(pass, false, place.point);
        const auto last = end.vector(0, (int)few);
        for (int64_t c = 0; c < width; ++c) {
            Vec value = {};
            for (int64_t tap = 0; tap < 9; ++tap) {
                const float* there =
                    rows_.row(place.y + tap / 3 - 1) + (c + tap % 3 - 1) * columns_;
                value += load(there + tap * few, (int)few);
            }
            last.give(value, first + c);
        }
    }

    // Multiplies a row of what goes in.
    void take_row(const RowPlace& place, int64_t y) const {
        const Channels& in = pass_.in;
        const int64_t start =
            place.point * pass_.values_point + place.sample * pass_.values_sample + y * in.row();
        const GatedRow from{gate_,
                            in,
                            pass_.values,
                            pass_.saved,
                            pass_.path.scale,
                            pass_.slopes + place.point * in.padded};
        const bool plain = gate_ == Gate::open && in.groups == 1;
        for (int64_t first = 0; first < pass_.tiles.width; first += kStrip) {
            const int64_t count = least(kStrip, pass_.tiles.width - first);
            const int64_t at = start + first * in.pixel();
            if (!plain) from.read_to(at, count, pixels_, in.padded);
            multiply_all({plain ? pass_.values + at : pixels_, plain ? in.pixel() : in.padded, 1,
                          taps_, columns_, rows_.row(y) + first * columns_, columns_, in.columns()},
                         count, columns_ / kLanes);
        }
    }

    const Pass& pass_;
    const Gate gate_;
    const int64_t columns_;
    float *const packed_, *const taps_, *const pixels_;
    const ThreeRows rows_;
};

// Every thread its rows of all images at all points; one more on either side of them is read.
inline void convolve_rows(const Pass& pass, Gate gate) {
    const PathConvolution& path = pass.path;
    const int64_t height = pass.tiles.height, total = path.points * path.samples * height;
    const int64_t size = round_up(ThinOut::size(pass), 16) + 16;
    const Scratch scratch(4 * path.threads * size);
    float* rooms = scratch.floats();

#pragma omp parallel num_threads(path.threads)
    {
        ThinOut rows(pass, gate, rooms + thread_id() * size);
        const Range mine = share(total, thread_id(), thread_count());
        int64_t point = -1;
        for (int64_t row = mine.begin; row < mine.end; ++row) {
            const RowPlace place(row, path.samples, height);
            if (place.point != point) rows.begin_point(point = place.point);
            rows.go_to(place, row == mine.begin);
            rows.give_row(place);
        }
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
