#pragma once

// Kernels of 1×1, and linear layers: products of the pixels and the weights of a point, a strip of
// pixels at a time.

#include "gemm.h"
#include "pass.h"
#include "sums.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Pixels that a thread takes together: few enough for the first cache, in whole tiles.
constexpr int64_t kStripRows = 8 * kRows;

// y, or the input gradient. Weights are [outputs, inputs].
class Linear {
public:
    Linear(const Pass& pass, Gate gate, float* room)
        : pass_(pass),
          gate_(gate),
          past_(pass.stores_past()),
          weights_(room),
          strip_(weights_ + pass.in.group * panels(pass) * kPanel),
          product_(strip_ + kStripRows * pass.in.padded) {}

    static int64_t size(const Pass& pass, Gate) {
        return pass.in.group * panels(pass) * kPanel + kStripRows * (pass.in.padded + kPanel);
    }

    // Of a point.
    static int64_t units(const Pass& pass) { return pass.path.samples * pass.out_pixels(); }

    // γ(α) [panel][k][column].
    void begin_point(int64_t point) const {
        const PathConvolution& path = pass_.path;
        const float alpha = path.alpha[point];
        const int64_t depth = pass_.in.group, columns = pass_.out.group;
        const auto at = [&](int64_t i) {
            return path.dw ? path.w0[i] + alpha * path.dw[i] : path.w0[i];
        };
        for (int64_t j = 0; j < panels(pass_) * kPanel; j += kLanes) {
            const int64_t count = most(0, least(kLanes, columns - j));
            float* to = weights_ + j / kPanel * depth * kPanel + j % kPanel;
            for (int64_t k = 0; k < depth; ++k, to += kPanel)
                for (int64_t l = 0; l < kLanes; ++l) {
                    const int64_t i = pass_.gradient ? k * columns + j + l : (j + l) * depth + k;
                    to[l] = l < count ? at(i) : 0;
                }
        }
    }

    // Some pixels of all samples at a point.
    void run(int64_t point, Range pixels) const {
        const Channels &in = pass_.in, &out = pass_.out;
        const GatedRow from = pass_.image(gate_, point, 0);
        for (int64_t first = pixels.begin; first < pixels.end; first += kStripRows) {
            const int64_t count = least(kStripRows, pixels.end - first);
            const bool plain = gate_ == Gate::open;
            if (!plain) from.read_to(first * in.pitch, count, strip_, in.padded);
            const float* a = plain ? from.values + first * in.pitch : strip_;
            for (int64_t v = 0; v < out.vectors; v += kColumns) {
                const int64_t vectors = least(kColumns, out.vectors - v);
                multiply_panel<false>(
                    {a, plain ? in.pitch : in.padded, 1, weights_ + v * kLanes * in.group, kPanel,
                     product_, kPanel, in.group},
                    count, vectors);
                with_finish(pass_.finish(), [&](auto finish) {
                    give<finish.value>(point, first, count, {v, v + vectors});
                });
            }
        }
    }

private:
    static int64_t panels(const Pass& pass) { return (pass.out.vectors + kColumns - 1) / kColumns; }

    template <Finish kFinish>
    void give(int64_t point, int64_t first, int64_t count, Range vs) const {
        const Ending<kFinish> end(pass_, past_, point);
        pass_.out.each_vector(vs, [&](int64_t v, int64_t offset, int lanes) {
            const auto last = end.vector(offset, lanes);
            const float* from = product_ + (v - vs.begin) * kLanes;
            for (int64_t i = 0; i < count; ++i) last.give(load(from + i * kPanel), first + i);
        });
    }

    const Pass& pass_;
    const Gate gate_;
    const bool past_;
    float *const weights_, *const strip_, *const product_;
};

// Gradients of weights, bias and slopes: Σ over pixels and points of the gradient ⊗ x.
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

    // Pixels of one image, at all points.
    int64_t rows() const { return path_.points * pixels_; }
    int64_t size() const { return (out_.group + strip_) * in_.padded + (strip_ + 2) * out_.padded; }

    void add_rows(float* room, int64_t image, Range rows, const Sums& to) const {
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
    // The longer what is summed in registers is, the less is rounded; it stays in the second cache.
    static constexpr int64_t kMostTogether = 256, kRoom = 1 << 16;

    // Pixels [first, first + count) of all samples at a point.
    void add_strip(int64_t point, int64_t first, int64_t count, float* g_room, float* x_room,
                   float* sums, float* biases, float* slope_sums) const {
        const int64_t at =
            (point * path_.samples * path_.height * path_.width + first) * out_.group;
        const Gate gate = gate_of(path_);
        const GatedRow gradient{gate,          out_,        arrays_.gy,
                                arrays_.saved, path_.scale, slopes_ + point * out_.padded};
        gradient.read_to(at, count, g_room, out_.padded);
        if (arrays_.gb) add_rows_to(biases, g_room, count, out_.padded, out_.padded);
        if (arrays_.gs) gradient.add_slopes(at, count, slope_sums);
        if (!arrays_.gw) return;
        const float* x = arrays_.x + point * arrays_.x_point + first * in_.pitch;
        int64_t x_row = in_.pitch;
        if (in_.group % kLanes) {  // else vectors would reach behind the pixel
            const GatedRow plain{Gate::open, in_, x, nullptr, 1, nullptr};
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
    const int64_t strip_;   // of those that are taken together
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
