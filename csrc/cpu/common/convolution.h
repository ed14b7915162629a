#pragma once

// One convolution, forward or as an input gradient: its arrays, their layouts and its epilogue.

#include "../streaming.h"
#include "epilogue.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Reads `in` and writes `out`: x and y going forward, gy and gx for an input gradient.
struct Convolution {
    const PathConvolution& path;
    Channels in, out;
    Tiles tiles;                  // of `out`
    int64_t in_height;            // rows of `in`, unshuffled; in.width is its width
    const float *values, *saved;  // the arrays of `in`; saved is null where the mask reads none
    int64_t values_point, values_sample;
    const float* residual;
    int64_t residual_point, residual_pixel, out_sample;  // residual_pixel: in floats, unshuffled
    float* result;
    // Slopes of the mask that a gradient is read through, or of the activation of y.
    const float* slopes;  // [points, padded]
    const float* bias;    // [points, padded], or null
    bool gradient;
    // Output of the preceding activation, whose sign masks the input gradient, or its factors; null
    // leaves the gradient at x.
    const float* output_mask;
    int64_t output_mask_point, output_mask_pixel;
    float output_mask_slope;
    bool output_mask_factors;

    // Offset of a square of taps from the pixel it contributes to.
    int64_t row_offset(int64_t square) const {
        return gradient ? -path.kernel.row_offset(square) : path.kernel.row_offset(square);
    }
    int64_t column_offset(int64_t square) const {
        return gradient ? -path.kernel.column_offset(square) : path.kernel.column_offset(square);
    }

    // Reader of the input of one sample.
    PixelReader image(GradientMask mask, int64_t point, int64_t sample) const {
        const int64_t at = point * values_point + sample * values_sample;
        return {mask,        in,
                values + at, saved ? saved + at : nullptr,
                path.scale,  slopes + point * in.padded};
    }

    // Output pixels of a sample, before the shuffle.
    int64_t out_pixels() const { return tiles.height * tiles.width; }

    Epilogue epilogue() const {
        if (output_mask && output_mask_factors) return Epilogue::factor_mask;
        if (output_mask) return output_mask_slope == 0 ? Epilogue::relu_mask : Epilogue::leaky_mask;
        if (gradient || path.activation == Activation::none) return Epilogue::none;
        return path.activation == Activation::relu ? Epilogue::relu : Epilogue::leaky;
    }
    float scale() const { return gradient ? 1 : path.scale; }

    // Layout of the residual and of the output mask. An image whose pixels lie apart is never
    // shuffled.
    Channels residual_channels() const { return pitched(residual_pixel); }
    Channels output_mask_channels() const { return pitched(output_mask_pixel); }
    Channels pitched(int64_t pixel) const {
        return pixel == out.pixel() ? out : Channels(out.group, tiles.width, 1, pixel);
    }

    // Whether results are stored non-temporally; such a store writes a whole cache line.
    bool stores_nontemporal() const {
        return streams(path) && (uintptr_t)result % 64 == 0 && out.group % kLanes == 0;
    }
};

// The input gradient, which reads gy and writes gx in tiles of `side`. slopes: [points, padded] of
// gy's channels.
inline Convolution input_gradient(const PathConvolution& path, const BackwardArrays& arrays,
                                  const float* slopes, int64_t side) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Channels out(path.inputs, path.x_width, 1);
    const int64_t pixels = path.x_height * path.x_width;
    const int64_t sample = path.height * path.width * path.outputs;
    const int64_t x_pixel = arrays.x_pixel ? arrays.x_pixel : path.inputs;
    const int64_t more_pixel = arrays.more_pixel ? arrays.more_pixel : path.inputs;
    const bool factors = arrays.before == Activation::factor;
    const float* mask = factors ? arrays.before_factors : arrays.x;
    return {path,
            in,
            out,
            Tiles(path.x_height, path.x_width, side),
            path.height,
            arrays.gy,
            arrays.saved,
            path.samples * sample,
            sample,
            arrays.more,
            path.samples * pixels * more_pixel,
            more_pixel,
            pixels * path.inputs,
            arrays.gx,
            slopes,
            nullptr,
            true,
            arrays.before == Activation::none ? nullptr : mask,
            factors ? path.samples * pixels * path.inputs : arrays.x_point,
            factors ? path.inputs : x_pixel,
            arrays.before == Activation::leaky ? arrays.before_slope : 0,
            factors};
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
