#pragma once

// The weights of a layer at points of the line, transformed, in the order in which the microkernel
// reads them.

#include "channels.h"
#include "gemm.h"
#include "transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// U[frequency][panel][k][column]: k are channels that go in, columns those that come out.
struct WeightLayout {
    int64_t depth, vectors, panels, panel, slot, size;

    WeightLayout(const Channels& in, const Channels& out)
        : depth(in.columns()),
          vectors(out.vectors),
          panels((out.vectors + kColumns - 1) / kColumns),
          panel(depth * kPanel),
          slot(panels * panel + 16),  // frequencies not in the same sets of the first cache
          size(kFrequencies * slot) {}
};

// Taps [9][k][column] of weights [outputs, 3, 3, inputs], for some k. The gradient of the input
// takes them turned round: what comes out there are the layer's inputs.
inline void pack_taps(const float* w, const Channels& in, const Channels& out, bool gradient,
                      Range ks, float* taps) {
    const int64_t inputs = gradient ? out.group : in.group, plane = in.columns() * out.padded;
    for (int64_t k = ks.begin; k < ks.end; ++k) {
        const int64_t from = in.channel(k);
        for (int64_t j = 0; j < out.padded; ++j) {
            const int64_t to = out.channel(j);
            float* at = taps + k * out.padded + j;
            if (from < 0 || to < 0)
                for (int t = 0; t < 9; ++t) at[t * plane] = 0;
            else if (gradient)
                for (int t = 0; t < 9; ++t) at[t * plane] = w[(from * 9 + 8 - t) * inputs + to];
            else
                for (int t = 0; t < 9; ++t) at[t * plane] = w[(to * 9 + t) * inputs + from];
        }
    }
}

// U(γ(α)) from the taps of w0 and Δ (or null), for some k. Interpolated here and not in the
// transformed domain: nine taps are read for 36 values written.
inline void transform_weights(const float* taps, const float* delta, float alpha,
                              const WeightLayout& layout, Range ks, float* u) {
    const int64_t padded = layout.vectors * kLanes, plane = layout.depth * padded;
    for (int64_t k = ks.begin; k < ks.end; ++k)
        for (int64_t v = 0; v < layout.vectors; ++v) {
            const int64_t at = k * padded + v * kLanes;
            Vec w[9];
#pragma GCC unroll 9
            for (int t = 0; t < 9; ++t) {
                w[t] = load(taps + t * plane + at);
                if (delta) w[t] += alpha * load(delta + t * plane + at);
            }
            transform_weight(w,
                             u + v / kColumns * layout.panel + k * kPanel + v % kColumns * kLanes,
                             layout.slot);
        }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
