#pragma once

// Depthwise convolutions: every channel has its own kernel, so vectors are of channels. They go row
// by row, since memory limits them and not multiplication.

#include "../common/image_gradients.h"
#include "output_writer.h"
#include "row_window.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int64_t kTogether = 4;  // pixels of a row that share each load of weights
constexpr int64_t kStretch = 4 * kTogether;

// y, or the input gradient gx. Weights are [taps, channels].
class Depthwise {
public:
    Depthwise(const Convolution& conv, GradientMask mask, float* room)
        : conv_(conv),
          mask_(mask),
          nontemporal_(conv.stores_nontemporal()),
          kernel_(conv.path.kernel),
          weights_(room),
          rows_(mask != GradientMask::none, conv.in, conv.in_height, kernel_.down,
                room + kernel_.taps() * conv.in.padded) {}

    static int64_t size(const Convolution& conv, GradientMask mask) {
        const Kernel& kernel = conv.path.kernel;
        return kernel.taps() * conv.in.padded +
               RowWindow::size(mask != GradientMask::none, conv.in, kernel.down);
    }

    // Rows of a point.
    static int64_t units(const Convolution& conv) { return conv.path.samples * conv.tiles.height; }

    // Interpolates γ(α) of a point as [taps, padded], flipped for an input gradient.
    void begin_point(int64_t point) {
        const PathConvolution& path = conv_.path;
        const int64_t taps = kernel_.taps(), channels = conv_.in.group;
        for (int64_t t = 0; t < taps; ++t)
            conv_.in.each_vector([&](int64_t v, int64_t offset, int lanes) {
                Vec w = read(path.w0 + t * channels + offset, lanes);
                if (path.dw) w += path.alpha[point] * read(path.dw + t * channels + offset, lanes);
                const int64_t to = conv_.gradient ? taps - 1 - t : t;
                store(weights_ + to * conv_.in.padded + v * kLanes, w);
            });
    }

    // Computes some rows of all samples at a point.
    void run(int64_t point, Range rows) {
        rows_.each_row(
            conv_, mask_, point, rows, [&](int64_t y) { return y - top() + kernel_.down - 1; },
            [&](int64_t sample, int64_t y) {
                with_epilogue(conv_.epilogue(),
                              [&](auto epilogue) { write_row<epilogue.value>(point, sample, y); });
            });
    }

private:
    // Rows, and columns, from the first tap to the output pixel.
    int64_t top() const {
        return conv_.gradient ? kernel_.down - 1 - kernel_.pad_y : kernel_.pad_y;
    }
    int64_t left() const {
        return conv_.gradient ? kernel_.across - 1 - kernel_.pad_x : kernel_.pad_x;
    }

    template <Epilogue kEpilogue>
    void write_row(int64_t point, int64_t sample, int64_t y) const {
        const OutputWriter<kEpilogue> writer(conv_, nontemporal_, point);
        const int64_t width = conv_.out.width, pixel = (sample * conv_.tiles.height + y) * width;
        const int64_t top = y - this->top(), left = this->left();
        const Range down{most(0, -top), least(kernel_.down, conv_.in_height - top)};
        // All channels of a stretch of pixels before the next stretch, in the order of memory.
        for (int64_t begin = 0; begin < width; begin += kStretch) {
            const int64_t stop = least(width, begin + kStretch);
            conv_.in.each_vector([&](int64_t v, int64_t offset, int lanes) {
                const auto output = writer.column(offset, lanes);
                for (int64_t x = begin; x < stop;) {
                    const int64_t first = x - left;
                    const bool inside = first >= 0 && x + kTogether <= stop &&
                                        first + kTogether - 1 + kernel_.across <= conv_.in.width;
                    if (inside) {
                        Vec sums[kTogether] = {};
                        add<kTogether>(down, top, first, {0, kernel_.across}, v, offset, lanes,
                                       sums);
                        for (int64_t i = 0; i < kTogether; ++i)
                            output.write(sums[i], pixel + x + i);
                        x += kTogether;
                    } else {
                        Vec sum[1] = {};
                        const Range across{most(0, -first),
                                           least(kernel_.across, conv_.in.width - first)};
                        add<1>(down, top, first, across, v, offset, lanes, sum);
                        output.write(sum[0], pixel + x);
                        ++x;
                    }
                }
            });
        }
    }

    // Adds some taps to neighbouring output pixels, the first of which reads from (top, left).
    template <int64_t kPixels>
    void add(Range down, int64_t top, int64_t left, Range across, int64_t v, int64_t offset,
             int lanes, Vec* sums) const {
        const int64_t apart = rows_.pixel();
        // Copied rows are padded to whole vectors.
        const bool whole = lanes == kLanes || mask_ != GradientMask::none;
        for (int64_t i = down.begin; i < down.end; ++i) {
            const float* w = weights_ + i * kernel_.across * conv_.in.padded + v * kLanes;
            const float* row = rows_.row(top + i) + left * apart + offset;
            for (int64_t j = across.begin; j < across.end; ++j) {
                const Vec tap = load(w + j * conv_.in.padded);
#pragma GCC unroll 4
                for (int64_t p = 0; p < kPixels; ++p) {
                    const float* x = row + (j + p) * apart;
                    sums[p] += tap * (whole ? load(x) : load(x, lanes));
                }
            }
        }
    }

    const Convolution& conv_;
    const GradientMask mask_;
    const bool nontemporal_;
    const Kernel& kernel_;
    float* const weights_;
    RowWindow rows_;
};

// Gradients of weights, biases and slopes of each image.
class DepthwiseGradient {
public:
    DepthwiseGradient(const PathConvolution& path, const BackwardArrays& arrays,
                      const float* slopes)
        : path_(path),
          arrays_(arrays),
          slopes_(slopes),
          kernel_(path.kernel),
          in_(path.inputs, path.x_width, 1, arrays.x_pixel),
          out_(path.outputs, path.width, 1),
          samples_(path.samples / arrays.images) {}

    // Rows of one image at all points.
    int64_t rows() const { return path_.points * samples_ * path_.height; }
    int64_t size() const { return (kernel_.taps() + 2 + out_.width) * out_.padded; }

    void add_rows(float* room, int64_t image, Range rows, const ImageGradients& to) const {
        const int64_t padded = out_.padded, taps = kernel_.taps();
        float *biases = room + taps * padded, *slope_sums = biases + padded;
        float* g = slope_sums + padded;
        for (float* at = room; at < g; ++at) *at = 0;
        each_point(rows, samples_ * path_.height, [&](int64_t point, Range some) {
            const PixelReader gradient{mask_of(path_), out_,        arrays_.gy,
                                       arrays_.saved,  path_.scale, slopes_ + point * padded};
            for (int64_t row = some.begin; row < some.end; ++row) {
                const int64_t sample = image * samples_ + row / path_.height;
                const int64_t y = row % path_.height;
                const int64_t at =
                    ((point * path_.samples + sample) * path_.height + y) * out_.row();
                gradient.read_to(at, out_.width, g, padded);
                if (arrays_.gs) gradient.add_slopes(at, out_.width, slope_sums);
                const float* x =
                    arrays_.x + point * arrays_.x_point + sample * path_.x_height * in_.row();
                if (arrays_.gb) add_rows_to(biases, g, out_.width, padded, padded);
                if (!arrays_.gw) continue;
                out_.each_vector([&](int64_t v, int64_t offset, int lanes) {
                    add_row(g + v * kLanes, x + offset, lanes, y, room + v * kLanes);
                });
            }
        });
        for (int64_t c = 0; c < out_.group; ++c) {
            if (to.gb) to.gb[c] = biases[c];
            if (to.gs) to.gs[c] = slope_sums[c];
            for (int64_t t = 0; t < taps && to.gw; ++t) to.gw[c * taps + t] = room[t * padded + c];
        }
    }

private:
    // Adds one vector of a row of gy times the rows of x that it meets.
    void add_row(const float* g, const float* x, int lanes, int64_t y, float* sums) const {
        const int64_t top = y - kernel_.pad_y;
        for (int64_t i = most(0, -top); i < least(kernel_.down, path_.x_height - top); ++i)
            for (int64_t j = 0; j < kernel_.across; j += kTogether) {
                const float* row = x + (top + i) * in_.row();
                float* to = sums + (i * kernel_.across + j) * out_.padded;
                switch (least(kTogether, kernel_.across - j)) {
                    case 1:
                        add_taps<1>(g, row, lanes, j, to);
                        break;
                    case 2:
                        add_taps<2>(g, row, lanes, j, to);
                        break;
                    case 3:
                        add_taps<3>(g, row, lanes, j, to);
                        break;
                    default:
                        add_taps<4>(g, row, lanes, j, to);
                }
            }
    }

    // Adds kTaps neighbouring taps of a row, from the j-th on.
    template <int64_t kTaps>
    void add_taps(const float* g, const float* row, int lanes, int64_t j, float* to) const {
        static_assert(kTogether == 4, "a case for every number of taps");
        const int64_t left = j - kernel_.pad_x, pixel = in_.pixel();
        const bool whole = lanes == kLanes;
        // All of these taps meet the image in [begin, end), only some elsewhere.
        const int64_t begin = least(most(0, -left), out_.width);
        const int64_t end = most(begin, least(out_.width, in_.width - left - kTaps + 1));
        Vec sum[kTaps] = {};
        const auto one = [&](int64_t i) {
            const Vec value = load(g + i * out_.padded);
            for (int64_t t = 0; t < kTaps; ++t) {
                const int64_t at = i + left + t;
                if (at >= 0 && at < in_.width) sum[t] += value * read(row + at * pixel, lanes);
            }
        };
        for (int64_t i = 0; i < begin; ++i) one(i);
        for (int64_t i = begin; i < end; ++i) {
            const Vec value = load(g + i * out_.padded);
#pragma GCC unroll 4
            for (int64_t t = 0; t < kTaps; ++t) {
                const float* at = row + (i + left + t) * pixel;
                sum[t] += value * (whole ? load(at) : load(at, lanes));
            }
        }
        for (int64_t i = end; i < out_.width; ++i) one(i);
        for (int64_t t = 0; t < kTaps; ++t)
            store(to + t * out_.padded, load(to + t * out_.padded) + sum[t]);
    }

    const PathConvolution& path_;
    const BackwardArrays& arrays_;
    const float* slopes_;  // [points, padded]
    const Kernel& kernel_;
    const Channels in_, out_;
    const int64_t samples_;  // of one image
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
