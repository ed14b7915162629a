#pragma once

// Any other convolution, with strides, dilation or groups, and transposed ones: tap by tap,
// products of pixels in a row and the weights of the tap. It leads from a large image to a small
// one, of which pixel i lies on pixel i·stride + tap·dilation − padding, or back; transposed
// convolutions and gradients lead back.

#include "gemm.h"
#include "pass.h"
#include "rows.h"
#include "sums.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Taps of one direction.
struct Taps {
    int64_t count, pad, stride, dilation;

    // Where the pixel of the large image lies that a tap makes of pixel 0 of the small one.
    int64_t shift(int64_t tap) const { return tap * dilation - pad; }
    // Pixels of the small image, of so many, that a tap leads to some of the large one.
    Range onto(int64_t tap, Range large, int64_t small) const {
        const auto above = [&](int64_t at) {
            const int64_t from = at - shift(tap);
            return from <= 0 ? 0 : (from + stride - 1) / stride;
        };
        return {least(above(large.begin), small), least(above(large.end), small)};
    }
    // Rows of the large image that belong together.
    int64_t reach() const { return (count - 1) * dilation + 1; }
};

inline Taps taps_down(const Kernel& k) { return {k.down, k.pad_y, k.stride_y, k.dilation_y}; }
inline Taps taps_across(const Kernel& k) { return {k.across, k.pad_x, k.stride_x, k.dilation_x}; }

// y, or the input gradient.
class Direct {
public:
    Direct(const Pass& pass, Gate gate, float* room)
        : pass_(pass),
          gate_(gate),
          shape_(pass),
          past_(pass.stores_past() && shape_.groups == 1),
          weights_(room),
          product_(weights_ + shape_.weights()),
          rows_(gate != Gate::open, pass.in, pass.in_height, shape_.kept(),
                product_ + kStrip * kPanel) {}

    static int64_t size(const Pass& pass, Gate gate) {
        const Shape shape(pass);
        return shape.weights() + kStrip * kPanel +
               KeptRows::size(gate != Gate::open, pass.in, shape.kept());
    }

    // Of a point.
    static int64_t units(const Pass& pass) { return pass.path.samples * pass.tiles.height; }

    // γ(α) [tap][group][panel][k][column] of a point.
    void begin_point(int64_t point) const {
        const PathConvolution& path = pass_.path;
        const float alpha = path.alpha[point];
        const int64_t depth = shape_.depth, columns = shape_.columns;
        float* to = weights_;
        for (int64_t part = 0; part < shape_.taps * shape_.groups; ++part) {
            const int64_t start = part * depth * columns;
            for (int64_t panel = 0; panel < shape_.panels; ++panel)
                for (int64_t k = 0; k < depth; ++k)
                    for (int64_t l = 0; l < kPanel; ++l, ++to) {
                        const int64_t j = panel * kPanel + l;
                        *to = 0;
                        if (j >= columns) continue;
                        const int64_t i = start + (shape_.up ? k * columns + j : j * depth + k);
                        *to = path.dw ? path.w0[i] + alpha * path.dw[i] : path.w0[i];
                    }
        }
    }

    // Some rows of all samples at a point.
    void run(int64_t point, Range rows) {
        const Taps& down = shape_.down;
        rows_.go_through(
            pass_, gate_, point, rows,
            [&](int64_t y) {
                return shape_.up ? (y + down.pad) / down.stride
                                 : y * down.stride + down.shift(down.count - 1);
            },
            [&](int64_t sample, int64_t y) {
                with_finish(pass_.finish(),
                            [&](auto finish) { give_row<finish.value>(point, sample, y); });
            });
    }

private:
    static constexpr int64_t kStrip = 8 * kRows;  // pixels of a row that are taken together

    struct Shape {
        bool up;  // from the small image to the large one
        Taps down, across;
        int64_t taps, groups, depth, columns, vectors, panels;

        explicit Shape(const Pass& pass)
            : up(pass.gradient != pass.path.kernel.transposed),
              down(taps_down(pass.path.kernel)),
              across(taps_across(pass.path.kernel)),
              taps(down.count * across.count),
              groups(pass.path.kernel.groups),
              depth(pass.in.group / groups),
              columns(pass.out.group / groups),
              vectors(round_up(columns, kLanes) / kLanes),
              panels((vectors + kColumns - 1) / kColumns) {}

        int64_t weights() const { return taps * groups * panels * depth * kPanel; }
        int64_t kept() const { return up ? (down.reach() - 1) / down.stride + 2 : down.reach(); }
    };

    template <Finish kFinish>
    void give_row(int64_t point, int64_t sample, int64_t y) const {
        const Ending<kFinish> end(pass_, past_, point);
        const int64_t width = pass_.out.width, pixel = (sample * pass_.tiles.height + y) * width;
        for (int64_t group = 0; group < shape_.groups; ++group)
            for (int64_t v = 0; v < shape_.vectors; v += kColumns) {
                const int64_t vectors = least(kColumns, shape_.vectors - v);
                for (int64_t x = 0; x < width; x += kStrip) {
                    const Range strip{x, least(width, x + kStrip)};
                    multiply(y, strip, group, v, vectors);
                    for (int64_t u = 0; u < vectors; ++u) {
                        const int64_t column = (v + u) * kLanes;
                        const auto last = end.vector(group * shape_.columns + column,
                                                     (int)least(kLanes, shape_.columns - column));
                        for (int64_t i = 0; i < strip.size(); ++i)
                            last.give(load(product_ + i * kPanel + u * kLanes), pixel + x + i);
                    }
                }
            }
    }

    // Sums of all taps for some pixels of a row, and some vectors of a group.
    void multiply(int64_t y, Range strip, int64_t group, int64_t v, int64_t vectors) const {
        const Taps &down = shape_.down, &across = shape_.across;
        const int64_t slot = shape_.depth * kPanel, pixel = rows_.pixel();
        for (int64_t i = 0; i < strip.size() * kPanel; i += kLanes) store(product_ + i, Vec{});
        for (int64_t i = 0; i < down.count; ++i) {
            int64_t row = y * down.stride + down.shift(i);
            if (shape_.up) {
                const int64_t from = y - down.shift(i);
                if (from < 0 || from % down.stride) continue;
                row = from / down.stride;
            }
            if (row < 0 || row >= pass_.in_height) continue;
            for (int64_t j = 0; j < across.count; ++j) {
                const int64_t tap = (i * across.count + j) * shape_.groups + group;
                Operands o{rows_.row(row) + group * shape_.depth,
                           pixel,
                           1,
                           weights_ + (tap * shape_.panels + v / kColumns) * slot,
                           kPanel,
                           product_,
                           kPanel,
                           shape_.depth};
                Range some;
                if (shape_.up) {
                    some = across.onto(j, strip, pass_.in.width);
                    o.a += some.begin * pixel;
                    o.c += (some.begin * across.stride + across.shift(j) - strip.begin) * kPanel;
                    o.c_row *= across.stride;
                } else {
                    some = across.onto(j, {0, pass_.in.width}, strip.end);
                    some.begin = most(some.begin, strip.begin);
                    o.a += (some.begin * across.stride + across.shift(j)) * pixel;
                    o.a_row *= across.stride;
                    o.c += (some.begin - strip.begin) * kPanel;
                }
                if (some.size() > 0) multiply_panel<true>(o, some.size(), vectors);
            }
        }
    }

    const Pass& pass_;
    const Gate gate_;
    const Shape shape_;
    const bool past_;
    float *const weights_, *const product_;
    KeptRows rows_;
};

// Gradients of weights, bias and slopes: Σ over pixels of the small image ⊗ the large one.
class DirectGradient {
public:
    DirectGradient(const PathConvolution& path, const BackwardArrays& arrays, const float* slopes)
        : path_(path),
          arrays_(arrays),
          slopes_(slopes),
          in_(path.inputs, path.x_width, 1, arrays.x_pixel),
          out_(path.outputs, path.width, 1),
          down_(taps_down(path.kernel)),
          across_(taps_across(path.kernel)),
          taps_(down_.count * across_.count),
          groups_(path.kernel.groups),
          samples_(path.samples / arrays.images),
          many_(large().group / groups_),
          padded_(round_up(many_, kLanes)),
          gated_(gate_of(path) != Gate::open) {}

    // Of one image, at all points: those of the small image.
    int64_t rows() const { return path_.points * samples_ * small_height(); }
    int64_t size() const {
        return taps_ * small().group * padded_ + (2 + out_.width) * out_.padded +
               KeptRows::size(copies_small(), small(), 1) +
               KeptRows::size(copies_large(), large(), down_.reach());
    }

    void add_rows(float* room, int64_t image, Range some, const Sums& to) const {
        const int64_t few = small().group;
        float *sums = room, *biases = sums + taps_ * few * padded_;
        float *slope_sums = biases + out_.padded, *line = slope_sums + out_.padded;
        float* kept = line + out_.width * out_.padded;
        for (float* at = sums; at < line; ++at) *at = 0;
        const bool turned = path_.kernel.transposed;
        KeptRows smalls(copies_small(), small(), small_height(), 1, kept);
        KeptRows larges(copies_large(), large(), large_height(), down_.reach(),
                        kept + KeptRows::size(copies_small(), small(), 1));
        each_point(some, samples_ * small_height(), [&](int64_t point, Range rows) {
            for (int64_t row = rows.begin, end; row < rows.end; row = end) {
                const int64_t sample = row / small_height(), top = sample * small_height();
                end = least(rows.end, top + small_height());
                const GatedRow x = of_x(point, image * samples_ + sample);
                const GatedRow gy = of_gy(point, image * samples_ + sample);
                smalls.go_to(turned ? x : gy);
                larges.go_to(turned ? gy : x);
                for (int64_t y = row - top; y < end - top; ++y) {
                    for (Range own = share(path_.height, (int)y, (int)small_height());
                         own.begin < own.end && (arrays_.gb || arrays_.gs); ++own.begin)
                        add_line(gy, own.begin, line, biases, slope_sums);
                    if (!arrays_.gw) continue;
                    smalls.read_until(y);
                    larges.read_until(y * down_.stride + down_.shift(down_.count - 1));
                    add_row(smalls, larges, y, sums);
                }
            }
        });
        for (int64_t o = 0; o < out_.group; ++o) {
            if (to.gb) to.gb[o] = biases[o];
            if (to.gs) to.gs[o] = slope_sums[o];
        }
        for (int64_t i = 0; i < taps_ * few && to.gw; ++i)
            copy(sums + i * padded_, to.gw + i * many_, many_);
    }

private:
    const Channels& small() const { return path_.kernel.transposed ? in_ : out_; }
    const Channels& large() const { return path_.kernel.transposed ? out_ : in_; }
    int64_t small_height() const { return path_.kernel.transposed ? path_.x_height : path_.height; }
    int64_t large_height() const { return path_.kernel.transposed ? path_.height : path_.x_height; }

    bool copies_small() const { return gated_ && !path_.kernel.transposed; }
    // Vectors reach behind the channels of a group where these do not fill them.
    bool copies_large() const { return (gated_ && path_.kernel.transposed) || many_ % kLanes; }

    GatedRow of_x(int64_t point, int64_t sample) const {
        const int64_t at = point * arrays_.x_point + sample * path_.x_height * in_.row();
        return {Gate::open, in_, arrays_.x + at, nullptr, 1, nullptr};
    }
    GatedRow of_gy(int64_t point, int64_t sample) const {
        const int64_t at = (point * path_.samples + sample) * path_.height * out_.row();
        return {gate_of(path_),  out_,
                arrays_.gy + at, arrays_.saved ? arrays_.saved + at : nullptr,
                path_.scale,     slopes_ + point * out_.padded};
    }

    // A row of the gradient, for bias and slopes.
    void add_line(const GatedRow& gy, int64_t y, float* line, float* biases,
                  float* slope_sums) const {
        gy.read_to(y * out_.row(), out_.width, line, out_.padded);
        add_rows_to(biases, line, out_.width, out_.padded, out_.padded);
        if (arrays_.gs) gy.add_slopes(y * out_.row(), out_.width, slope_sums);
    }

    // A row of the small image with those of the large one under it.
    void add_row(const KeptRows& smalls, const KeptRows& larges, int64_t y, float* sums) const {
        const int64_t few = small().group / groups_, pixel = larges.pixel();
        for (int64_t i = 0; i < down_.count; ++i) {
            const int64_t under = y * down_.stride + down_.shift(i);
            if (under < 0 || under >= large_height()) continue;
            for (int64_t j = 0; j < across_.count; ++j) {
                const Range some = across_.onto(j, {0, large().width}, small().width);
                if (some.size() <= 0) continue;
                const int64_t first = some.begin * across_.stride + across_.shift(j);
                for (int64_t group = 0; group < groups_; ++group)
                    for (int64_t v = 0; v * kLanes < padded_; v += kColumns)
                        multiply_panel<true>(
                            {smalls.row(y) + some.begin * smalls.pixel() + group * few, 1,
                             smalls.pixel(),
                             larges.row(under) + first * pixel + group * many_ + v * kLanes,
                             across_.stride * pixel,
                             sums + (((i * across_.count + j) * groups_ + group) * few) * padded_ +
                                 v * kLanes,
                             padded_, some.size()},
                            few, least(kColumns, padded_ / kLanes - v));
            }
        }
    }

    const PathConvolution& path_;
    const BackwardArrays& arrays_;
    const float* slopes_;  // [points, padded]
    const Channels in_, out_;
    const Taps down_, across_;
    const int64_t taps_, groups_;
    const int64_t samples_;        // of one image
    const int64_t many_, padded_;  // channels of a group of the large image
    const bool gated_;
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
