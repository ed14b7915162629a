#pragma once

// The weights of a layer at points of the line, Winograd-transformed, in the order in which the
// microkernel reads them.

#include "../common/channels.h"
#include "../common/gemm.h"
#include "../path_convolution.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// U[frequency][panel][k][column]: k counts input channels, columns are output channels.
struct WeightLayout {
    int64_t depth, vectors, panels, row, panel, slot, size;

    WeightLayout(int64_t depth, int64_t vectors)
        : depth(depth),
          vectors(vectors),
          panels((vectors + kColumns - 1) / kColumns),
          row(least(vectors, kColumns) * kLanes),
          panel(depth * row),
          slot(panels * panel + 16),  // keeps frequencies out of the same sets of the L1 cache
          size(kFrequencies * slot) {}
};

// Input and output channels of the convolution that reads the weights; its image has no size here.
inline Channels packed_in(const Packing& p) {
    return p.input_gradient ? Channels(p.outputs, 1, p.shuffle) : Channels(p.inputs, 1, 1);
}

inline Channels packed_out(const Packing& p) {
    return p.input_gradient ? Channels(p.inputs, 1, 1) : Channels(p.outputs, 1, p.shuffle);
}

// The input gradient reads weights [outputs, 3, 3, inputs] in place where its output channels, the
// layer's inputs, fill whole vectors: flipped taps are then a negative stride.
inline bool read_in_place(const Packing& p) {
    return p.input_gradient && p.shuffle == 1 && p.inputs % kLanes == 0;
}

// Offset of the first tap, and strides between taps, channels k and squares; columns are dense.
struct TapStrides {
    int64_t first, tap, k, square;

    explicit TapStrides(const Packing& p) {
        if (read_in_place(p)) {
            first = 8 * p.inputs, tap = -p.inputs, k = 9 * p.inputs, square = p.outputs * k;
        } else {
            first = 0, k = packed_out(p).padded, tap = packed_in(p).columns() * k, square = 9 * tap;
        }
    }
};

// Packs weights [outputs, 3, 3, inputs] as taps [9][k][column], for some k.
inline void pack_taps(const float* w, const Channels& in, const Channels& out, Range ks,
                      float* taps) {
    const int64_t plane = in.columns() * out.padded;
    for (int64_t j = 0; j < out.padded; j += kLanes) {
        // The rows of a few outputs stay in the L1 cache while the loops run through their inputs.
        const float* rows[kLanes];
        for (int l = 0; l < kLanes; ++l) {
            const int64_t o = out.channel(j + l);
            rows[l] = o < 0 ? nullptr : w + o * 9 * in.group;
        }
        for (int64_t t = 0; t < 9; ++t)
            for (int64_t k = ks.begin; k < ks.end; ++k) {
                float* to = taps + t * plane + k * out.padded + j;
                for (int l = 0; l < kLanes; ++l) to[l] = rows[l] ? rows[l][t * in.group + k] : 0;
            }
    }
}

// Packs the flipped taps of the input gradient, whose input channels are the layer's outputs.
inline void pack_flipped_taps(const float* w, const Channels& in, const Channels& out, Range ks,
                              float* taps) {
    const int64_t plane = in.columns() * out.padded;
    for (int64_t k = ks.begin; k < ks.end; ++k) {
        const int64_t o = in.channel(k);
        for (int64_t t = 0; t < 9; ++t)
            for (int64_t v = 0; v < out.vectors; ++v) {
                const float* from = w + (o * 9 + 8 - t) * out.group + v * kLanes;
                store(taps + t * plane + k * out.padded + v * kLanes,
                      o < 0 ? Vec{} : load(from, (int)least(kLanes, out.group - v * kLanes)));
            }
    }
}

// U(γ(α)) from the taps of w0 and Δ (or null), for some k. Interpolating taps and not U reads nine
// values for 36 written.
inline void transform_weights(const float* taps, const float* delta, float alpha,
                              const TapStrides& strides, const WeightLayout& layout, Range ks,
                              float* u) {
    for (int64_t k = ks.begin; k < ks.end; ++k)
        for (int64_t v = 0; v < layout.vectors; ++v) {
            const int64_t at = k * strides.k + v * kLanes;
            Vec w[9];
#pragma GCC unroll 9
            for (int t = 0; t < 9; ++t) {
                w[t] = load(taps + t * strides.tap + at);
                if (delta) w[t] += alpha * load(delta + t * strides.tap + at);
            }
            transform_weight(
                w, u + v / kColumns * layout.panel + k * layout.row + v % kColumns * kLanes,
                layout.slot);
        }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
