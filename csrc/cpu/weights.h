#pragma once

// The weights of a layer at points of the line, transformed, in the order in which the microkernel
// reads them.

#include "channels.h"
#include "gemm.h"
#include "path_convolution.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// U[frequency][panel][k][column]: k are channels that go in, columns those that come out.
struct WeightLayout {
    int64_t depth, vectors, panels, panel, slot, size;

    WeightLayout(int64_t depth, int64_t vectors)
        : depth(depth),
          vectors(vectors),
          panels((vectors + kColumns - 1) / kColumns),
          panel(depth * kPanel),
          slot(panels * panel + 16),  // frequencies not in the same sets of the first cache
          size(kFrequencies * slot) {}
};

// What goes in and comes out; pixels of images do not matter here.
inline Channels packed_in(const Packing& p) {
    return p.turned ? Channels(p.outputs, 1, p.shuffle) : Channels(p.inputs, 1, 1);
}

inline Channels packed_out(const Packing& p) {
    return p.turned ? Channels(p.inputs, 1, 1) : Channels(p.outputs, 1, p.shuffle);
}

// Weights [outputs, 3, 3, inputs] turned round are read as they are where inputs fill whole
// vectors.
inline bool read_as_they_are(const Packing& p) {
    return p.turned && p.shuffle == 1 && p.inputs % kLanes == 0;
}

// Where a tap of a k stands in a square, for all columns.
struct TapPlaces {
    int64_t first, tap, k, square;

    explicit TapPlaces(const Packing& p) {
        if (read_as_they_are(p)) {
            first = 8 * p.inputs, tap = -p.inputs, k = 9 * p.inputs, square = p.outputs * k;
        } else {
            first = 0, k = packed_out(p).padded, tap = packed_in(p).columns() * k, square = 9 * tap;
        }
    }
};

// Taps [9][k][column] of weights [outputs, 3, 3, inputs], for some k.
inline void pack_taps(const float* w, const Channels& in, const Channels& out, Range ks,
                      float* taps) {
    const int64_t plane = in.columns() * out.padded;
    for (int64_t j = 0; j < out.padded; j += kLanes) {
        // Lines of a few outputs stay in the first cache while their inputs are gone through.
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

// The same turned round: what goes in there are the layer's outputs.
inline void pack_turned_taps(const float* w, const Channels& in, const Channels& out, Range ks,
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

// U(γ(α)) from the taps of w0 and Δ (or null), for some k of the layout. Interpolated here and not
// in the transformed domain: nine taps are read for 36 values written.
inline void transform_weights(const float* taps, const float* delta, float alpha,
                              const TapPlaces& places, const WeightLayout& layout, Range ks,
                              float* u) {
    for (int64_t k = ks.begin; k < ks.end; ++k)
        for (int64_t v = 0; v < layout.vectors; ++v) {
            const int64_t at = k * places.k + v * kLanes;
            Vec w[9];
#pragma GCC unroll 9
            for (int t = 0; t < 9; ++t) {
                w[t] = load(taps + t * places.tap + at);
                if (delta) w[t] += alpha * load(delta + t * places.tap + at);
            }
            transform_weight(w,
                             u + v / kColumns * layout.panel + k * kPanel + v % kColumns * kLanes,
                             layout.slot);
        }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
