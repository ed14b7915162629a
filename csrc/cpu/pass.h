#pragma once

// One convolution, forward or as an input gradient, and what is done to a value before it is
// stored.

#include "gate.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// What one convolution reads and writes, whichever direction it goes.
struct Pass {
    const PathConvolution& path;
    Channels in, out;
    Tiles tiles;
    const float *values, *saved;  // saved: null where the gate needs nothing
    int64_t values_point, values_sample;
    const float* residual;
    int64_t residual_point, residual_pixel, out_sample;  // residual_pixel: in floats, unshuffled
    float* result;
    // Of the gate where a gradient is read, of the activation where y is written.
    const float* slopes;  // [points, padded]
    const float* bias;    // [points, padded], or null
    bool gradient;

    // Of what comes out.
    Activation activation() const { return gradient ? Activation::none : path.activation; }
    float scale() const { return gradient ? 1 : path.scale; }
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
