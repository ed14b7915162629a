#pragma once

// Kernels of 1×1, and linear layers: products of the pixels and the weights of a point, strip by
// strip.

#include "../common/gemm.h"
#include "../common/image_gradients.h"
#include "output_writer.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Pixels of a strip: few enough for the L1 cache, in whole register tiles.
constexpr int64_t kStripRows = 8 * kRows;

// y, or the input gradient gx. Weights are [outputs, inputs].
class Linear {
public:
    Linear(const Convolution& conv, GradientMask mask, float* room)
        : conv_(conv),
          mask_(mask),
          nontemporal_(conv.stores_nontemporal()),
          weights_(room),
          strip_(weights_ + conv.in.group * panels(conv) * kPanel),
          product_(strip_ + kStripRows * conv.in.padded) {}

    static int64_t size(const Convolution& conv, GradientMask) {
        return conv.in.group * panels(conv) * kPanel + kStripRows * (conv.in.padded + kPanel);
    }

    // Pixels of a point.
    static int64_t units(const Convolution& conv) { return conv.path.samples * conv.out_pixels(); }

    // Interpolates γ(α) of a point as [panel][k][column].
    void begin_point(int64_t point) const {
        const PathConvolution& path = conv_.path;
        const float alpha = path.alpha[point];
        const int64_t depth = conv_.in.group, columns = conv_.out.group;
        const auto at = [&](int64_t i) {
            return path.dw ? path.w0[i] + alpha * path.dw[i] : path.w0[i];
        };
        for (int64_t j = 0; j < panels(conv_) * kPanel; j += kLanes) {
            const int64_t count = most(0, least(kLanes, columns - j));
            float* to = weights_ + j / kPanel * depth * kPanel + j % kPanel;
            for (int64_t k = 0; k < depth; ++k, to += kPanel)
                for (int64_t l = 0; l < kLanes; ++l) {
                    const int64_t i = conv_.gradient ? k * columns + j + l : (j + l) * depth + k;
                    to[l] = l < count ? at(i) : 0;
                }
        }
    }

    // Computes some pixels of all samples at a point.
    void run(int64_t point, Range pixels) const {
        const Channels &in = conv_.in, &out = conv_.out;
        const PixelReader from = conv_.image(mask_, point, 0);
        for (int64_t first = pixels.begin; first < pixels.end; first += kStripRows) {
            const int64_t count = least(kStripRows, pixels.end - first);
            const bool plain = mask_ == GradientMask::none;
            if (!plain) from.read_to(first * in.pitch, count, strip_, in.padded);
            const float* a = plain ? from.values + first * in.pitch : strip_;
            for (int64_t v = 0; v < out.vectors; v += kColumns) {
                const int64_t vectors = least(kColumns, out.vectors - v);
                multiply_panel<false>(
                    {a, plain ? in.pitch : in.padded, 1, weights_ + v * kLanes * in.group, kPanel,
                     product_, kPanel, in.group},
                    count, vectors);
                with_epilogue(conv_.epilogue(), [&](auto epilogue) {
                    write<epilogue.value>(point, first, count, {v, v + vectors});
                });
            }
        }
    }

private:
    static int64_t panels(const Convolution& conv) {
        return (conv.out.vectors + kColumns - 1) / kColumns;
    }

    template <Epilogue kEpilogue>
    void write(int64_t point, int64_t first, int64_t count, Range vs) const {
        const OutputWriter<kEpilogue> writer(conv_, nontemporal_, point);
        conv_.out.each_vector(vs, [&](int64_t v, int64_t offset, int lanes) {
            const auto output = writer.column(offset, lanes);
            const float* from = product_ + (v - vs.begin) * kLanes;
            for (int64_t i = 0; i < count; ++i) output.write(load(from + i * kPanel), first + i);
        });
    }

    const Convolution& conv_;
    const GradientMask mask_;
    const bool nontemporal_;
    float *const weights_, *const strip_, *const product_;
};

// Gradients of weights, biases and slopes: sums over pixels and points of gy ⊗ x.
class LinearGradient {
public:
    LinearGradient(const PathConvolution& path, const BackwardArrays& arrays, const float* slopes)
        : path_(path),
          arrays_(arrays),
          slopes_(slopes),
          in_(path.inputs, path.width, 1, arrays.x_pixel),
          out_(path.outputs, path.width, 1),
          pixels_(path.samples / arrays.images * path.height * path.width),
          strip_(most(kStripRows, least(kMostTogether, kRoom / (in_.padded + out_.padded)))) {}

    // Pixels of one image at all points.
    int64_t rows() const { return path_.points * pixels_; }
    int64_t size() const { return (out_.group + strip_) * in_.padded + (strip_ + 2) * out_.padded; }

    void add_rows(float* room, int64_t image, Range rows, const ImageGradients& to) const {
        float *sums = room, *biases = sums + out_.group * in_.padded;
        float *slope_sums = biases + out_.padded, *g = slope_sums + out_.padded;
        float* x = g + strip_ * out_.padded;
        for (float* at = sums; at < g; ++at) *at = 0;
        each_point(rows, pixels_, [&](int64_t point, Range some) {
            for (int64_t first = some.begin; first < some.end; first += strip_)
                add_strip(point, image * pixels_ + first, least(strip_, some.end - first), g, x,
                          sums, biases, slope_sums);
        });
        for (int64_t o = 0; o < out_.group; ++o) {
            if (to.gb) to.gb[o] = biases[o];
            if (to.gs) to.gs[o] = slope_sums[o];
            if (to.gw) copy(sums + o * in_.padded, to.gw + o * in_.group, in_.group);
        }
    }

private:
    // Long sums in registers round less often; a strip still stays in the L2 cache.
    static constexpr int64_t kMostTogether = 256, kRoom = 1 << 16;

    // Adds pixels [first, first + count) of all samples at a point.
    void add_strip(int64_t point, int64_t first, int64_t count, float* g_room, float* x_room,
                   float* sums, float* biases, float* slope_sums) const {
        const int64_t at =
            (point * path_.samples * path_.height * path_.width + first) * out_.group;
        const GradientMask mask = mask_of(path_);
        const PixelReader gradient{mask,          out_,        arrays_.gy,
                                   arrays_.saved, path_.scale, slopes_ + point * out_.padded};
        gradient.read_to(at, count, g_room, out_.padded);
        if (arrays_.gb) add_rows_to(biases, g_room, count, out_.padded, out_.padded);
        if (arrays_.gs) gradient.add_slopes(at, count, slope_sums);
        if (!arrays_.gw) return;
        const float* x = arrays_.x + point * arrays_.x_point + first * in_.pitch;
        int64_t x_row = in_.pitch;
        if (in_.group % kLanes) {  // else whole vectors would read past the pixel
            const PixelReader plain{GradientMask::none, in_, x, nullptr, 1, nullptr};
            plain.read_to(0, count, x_room, in_.padded);
            x = x_room, x_row = in_.padded;
        }
        for (int64_t v = 0; v < in_.vectors; v += kColumns)
            multiply_panel<true>({g_room, 1, out_.padded, x + v * kLanes, x_row, sums + v * kLanes,
                                  in_.padded, count},
                                 out_.group, least(kColumns, in_.vectors - v));
    }

    const PathConvolution& path_;
    const BackwardArrays& arrays_;
    const float* slopes_;  // [points, padded]
    const Channels in_, out_;
    const int64_t pixels_;  // of one image at a point
    const int64_t strip_;   // pixels of a strip
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
