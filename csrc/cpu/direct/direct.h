#pragma once

// Any other convolution: strided, dilated, grouped or transposed. Each tap is a product of a row of
// pixels and the weights of the tap. Pixel i of the small image meets pixel i·stride + tap·dilation
// − padding of the large image. A convolution goes from the large image to the small one, a
// transposed convolution and an input gradient go back (`up`).

#include "../common/gemm.h"
#include "../common/image_gradients.h"
#include "output_writer.h"
#include "row_window.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// The taps along one axis.
struct Taps {
    int64_t count, pad, stride, dilation;

    // The pixel of the large image that meets pixel 0 of the small one at a tap.
    int64_t shift(int64_t tap) const { return tap * dilation - pad; }
    // The pixels of the small image, `small` of them, that meet a range of the large one at a tap.
    Range onto(int64_t tap, Range large, int64_t small) const {
        const auto first = [&](int64_t at) {
            const int64_t from = at - shift(tap);
            return from <= 0 ? 0 : (from + stride - 1) / stride;
        };
        return {least(first(large.begin), small), least(first(large.end), small)};
    }
    // Rows of the large image that one row of the small image meets.
    int64_t reach() const { return (count - 1) * dilation + 1; }
};

inline Taps taps_down(const Kernel& k) { return {k.down, k.pad_y, k.stride_y, k.dilation_y}; }
inline Taps taps_across(const Kernel& k) { return {k.across, k.pad_x, k.stride_x, k.dilation_x}; }

// y, or the input gradient gx.
class Direct {
public:
    Direct(const Convolution& conv, GradientMask mask, float* room)
        : conv_(conv),
          mask_(mask),
          shape_(conv),
          nontemporal_(conv.stores_nontemporal() && shape_.groups == 1),
          weights_(room),
          product_(weights_ + shape_.weights()),
          rows_(mask != GradientMask::none, conv.in, conv.in_height, shape_.kept(),
                product_ + kStrip * kPanel) {}

    static int64_t size(const Convolution& conv, GradientMask mask) {
        const Shape shape(conv);
        return shape.weights() + kStrip * kPanel +
               RowWindow::size(mask != GradientMask::none, conv.in, shape.kept());
    }

    // Rows of a point.
    static int64_t units(const Convolution& conv) { return conv.path.samples * conv.tiles.height; }

    // Interpolates γ(α) of a point as [tap][group][panel][k][column].
    void begin_point(int64_t point) const {
        const PathConvolution& path = conv_.path;
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

    // Computes some rows of all samples at a point.
    void run(int64_t point, Range rows) {
        const Taps& down = shape_.down;
        rows_.each_row(
            conv_, mask_, point, rows,
            [&](int64_t y) {
                return shape_.up ? (y + down.pad) / down.stride
                                 : y * down.stride + down.shift(down.count - 1);
            },
            [&](int64_t sample, int64_t y) {
                with_epilogue(conv_.epilogue(),
                              [&](auto epilogue) { write_row<epilogue.value>(point, sample, y); });
            });
    }

private:
    static constexpr int64_t kStrip = 8 * kRows;  // pixels of a row in one product

    struct Shape {
        bool up;  // from the small image to the large one
        Taps down, across;
        int64_t taps, groups, depth, columns, vectors, panels;

        explicit Shape(const Convolution& conv)
            : up(conv.gradient != conv.path.kernel.transposed),
              down(taps_down(conv.path.kernel)),
              across(taps_across(conv.path.kernel)),
              taps(down.count * across.count),
              groups(conv.path.kernel.groups),
              depth(conv.in.group / groups),
              columns(conv.out.group / groups),
              vectors(round_up(columns, kLanes) / kLanes),
              panels((vectors + kColumns - 1) / kColumns) {}

        int64_t weights() const { return taps * groups * panels * depth * kPanel; }
        int64_t kept() const { return up ? (down.reach() - 1) / down.stride + 2 : down.reach(); }
    };

    template <Epilogue kEpilogue>
    void write_row(int64_t point, int64_t sample, int64_t y) const {
        const OutputWriter<kEpilogue> writer(conv_, nontemporal_, point);
        const int64_t width = conv_.out.width, pixel = (sample * conv_.tiles.height + y) * width;
        for (int64_t group = 0; group < shape_.groups; ++group)
            for (int64_t v = 0; v < shape_.vectors; v += kColumns) {
                const int64_t vectors = least(kColumns, shape_.vectors - v);
                for (int64_t x = 0; x < width; x += kStrip) {
                    const Range strip{x, least(width, x + kStrip)};
                    multiply(y, strip, group, v, vectors);
                    for (int64_t u = 0; u < vectors; ++u) {
                        const int64_t column = (v + u) * kLanes;
                        const auto output =
                            writer.column(group * shape_.columns + column,
                                          (int)least(kLanes, shape_.columns - column));
                        for (int64_t i = 0; i < strip.size(); ++i)
                            output.write(load(product_ + i * kPanel + u * kLanes), pixel + x + i);
                    }
                }
            }
    }

    // Sums over all taps for some pixels of a row, and some vectors of a group's columns.
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
            if (row < 0 || row >= conv_.in_height) continue;
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
                    some = across.onto(j, strip, conv_.in.width);
                    o.a += some.begin * pixel;
                    o.c += (some.begin * across.stride + across.shift(j) - strip.begin) * kPanel;
                    o.c_row *= across.stride;
                } else {
                    some = across.onto(j, {0, conv_.in.width}, strip.end);
                    some.begin = most(some.begin, strip.begin);
                    o.a += (some.begin * across.stride + across.shift(j)) * pixel;
                    o.a_row *= across.stride;
                    o.c += (some.begin - strip.begin) * kPanel;
                }
                if (some.size() > 0) multiply_panel<true>(o, some.size(), vectors);
            }
        }
    }

    const Convolution& conv_;
    const GradientMask mask_;
    const Shape shape_;
    const bool nontemporal_;
    float *const weights_, *const product_;
    RowWindow rows_;
};

// Gradients of weights, biases and slopes: sums over pixels of the small image ⊗ the large image.
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
          masked_(mask_of(path) != GradientMask::none) {}

    // Rows of the small image, of one image at all points.
    int64_t rows() const { return path_.points * samples_ * small_height(); }
    int64_t size() const {
        return taps_ * small().group * padded_ + (2 + out_.width) * out_.padded +
               RowWindow::size(copies_small(), small(), 1) +
               RowWindow::size(copies_large(), large(), down_.reach());
    }

    void add_rows(float* room, int64_t image, Range some, const ImageGradients& to) const {
        const int64_t few = small().group;
        float *sums = room, *biases = sums + taps_ * few * padded_;
        float *slope_sums = biases + out_.padded, *line = slope_sums + out_.padded;
        float* kept = line + out_.width * out_.padded;
        for (float* at = sums; at < line; ++at) *at = 0;
        const bool transposed = path_.kernel.transposed;
        RowWindow smalls(copies_small(), small(), small_height(), 1, kept);
        RowWindow larges(copies_large(), large(), large_height(), down_.reach(),
                         kept + RowWindow::size(copies_small(), small(), 1));
        each_point(some, samples_ * small_height(), [&](int64_t point, Range rows) {
            for (int64_t row = rows.begin, end; row < rows.end; row = end) {
                const int64_t sample = row / small_height(), top = sample * small_height();
                end = least(rows.end, top + small_height());
                const PixelReader x = of_x(point, image * samples_ + sample);
                const PixelReader gy = of_gy(point, image * samples_ + sample);
                smalls.begin_image(transposed ? x : gy);
                larges.begin_image(transposed ? gy : x);
                for (int64_t y = row - top; y < end - top; ++y) {
                    for (Range own = share(path_.height, (int)y, (int)small_height());
                         own.begin < own.end && (arrays_.gb || arrays_.gs); ++own.begin)
                        add_bias_row(gy, own.begin, line, biases, slope_sums);
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

    bool copies_small() const { return masked_ && !path_.kernel.transposed; }
    // Whole vectors would read past the channels of a group that do not fill them.
    bool copies_large() const { return (masked_ && path_.kernel.transposed) || many_ % kLanes; }

    PixelReader of_x(int64_t point, int64_t sample) const {
        const int64_t at = point * arrays_.x_point + sample * path_.x_height * in_.row();
        return {GradientMask::none, in_, arrays_.x + at, nullptr, 1, nullptr};
    }
    PixelReader of_gy(int64_t point, int64_t sample) const {
        const int64_t at = (point * path_.samples + sample) * path_.height * out_.row();
        return {mask_of(path_),  out_,
                arrays_.gy + at, arrays_.saved ? arrays_.saved + at : nullptr,
                path_.scale,     slopes_ + point * out_.padded};
    }

    // Adds row y of gy to the sums of biases and slopes.
    void add_bias_row(const PixelReader& gy, int64_t y, float* line, float* biases,
                      float* slope_sums) const {
        gy.read_to(y * out_.row(), out_.width, line, out_.padded);
        add_rows_to(biases, line, out_.width, out_.padded, out_.padded);
        if (arrays_.gs) gy.add_slopes(y * out_.row(), out_.width, slope_sums);
    }

    // Adds row y of the small image times the rows of the large image it meets.
    void add_row(const RowWindow& smalls, const RowWindow& larges, int64_t y, float* sums) const {
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
    const bool masked_;
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
