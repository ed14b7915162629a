// The layers on which convolution.cpp runs the path convolution and its gradients.

#pragma once

#include <cstdint>

#include "../../csrc/cpu/dispatch.h"

namespace convolution_cases {

using faigfast::Activation;
using faigfast::Kind;

struct Case {
    int64_t points, images, rest, height, width, inputs, outputs, shuffle;
    bool shared_x;
    Activation activation;
    float scale;
    bool residual;
    faigfast::Kernel kernel = {Kind::squares, 1, 1, 1, 1};

    // Size of x; height and width are the size of y.
    int64_t x_height() const {
        return side(height, kernel.down, kernel.pad_y, kernel.stride_y, kernel.dilation_y);
    }
    int64_t x_width() const {
        return side(width, kernel.across, kernel.pad_x, kernel.stride_x, kernel.dilation_x);
    }
    int64_t side(int64_t y, int64_t parts, int64_t pad, int64_t stride, int64_t dilation) const {
        if (kernel.kind != Kind::direct)
            return y + (kernel.kind == Kind::squares ? 3 : 1) * parts - 1 - 2 * pad;
        const int64_t reach = (parts - 1) * dilation + 1 - 2 * pad;
        return kernel.transposed ? (y - reach) / stride + 1 : (y - 1) * stride + reach;
    }
    int64_t groups() const {
        if (kernel.kind == Kind::depthwise) return inputs;
        return kernel.kind == Kind::direct ? kernel.groups : 1;
    }
    int64_t weights() const { return outputs * inputs / groups() * kernel.taps(); }
};

const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, false, Activation::none, 1, false},
    {2, 2, 1, 5, 7, 3, 5, 1, true, Activation::relu, 1, false},
    {3, 1, 2, 4, 9, 17, 8, 1, false, Activation::leaky, 0.5f, false},
    {2, 3, 1, 9, 4, 8, 33, 1, false, Activation::none, 0.2f, true},
    {2, 1, 2, 6, 5, 5, 12, 2, false, Activation::relu, 1, false},
    {1, 2, 1, 13, 3, 20, 9, 3, false, Activation::leaky, 1, false},
    // Several parts of inputs and of outputs.
    {2, 1, 1, 5, 6, 130, 212, 1, false, Activation::leaky, 0.5f, true},
    {1, 1, 1, 6, 3, 104, 288, 2, false, Activation::relu, 1, false},
    // Several blocks, with non-temporal stores of whole lines.
    {1, 1, 1, 25, 22, 112, 16, 1, false, Activation::leaky, 0.5f, true},
    {1, 2, 1, 22, 25, 16, 64, 2, false, Activation::relu, 1, false},
    // Kernels of several squares.
    {2, 2, 1, 9, 7, 20, 9, 1, true, Activation::leaky, 0.5f, true, {Kind::squares, 2, 1, 2, 0}},
    {1, 1, 2, 5, 26, 104, 3, 1, false, Activation::relu, 1, false, {Kind::squares, 2, 3, 0, 6}},
    // Depthwise, direct, transposed and 1×1 kernels.
    {3, 2, 1, 6, 9, 20, 20, 1, true, Activation::leaky, 0.5f, true, {Kind::depthwise, 3, 5, 1, 0}},
    {1, 1, 2, 5, 6, 80, 80, 1, false, Activation::relu, 1, false, {Kind::depthwise, 7, 7, 3, 3}},
    {2, 1, 1, 8, 10, 16, 16, 1, false, Activation::none, 1, false, {Kind::depthwise, 2, 1, 3, 4}},
    {2,
     2,
     1,
     4,
     9,
     20,
     9,
     1,
     true,
     Activation::leaky,
     0.5f,
     true,
     {Kind::direct, 3, 2, 1, 0, 2, 3, 1, 2, 1, false}},
    {1,
     1,
     2,
     5,
     51,
     24,
     40,
     1,
     false,
     Activation::relu,
     1,
     false,
     {Kind::direct, 2, 3, 0, 4, 1, 1, 3, 1, 4, false}},
    {2,
     1,
     1,
     7,
     13,
     20,
     9,
     1,
     false,
     Activation::leaky,
     1,
     true,
     {Kind::direct, 4, 3, 1, 0, 2, 3, 1, 2, 1, true}},
    {1,
     2,
     1,
     6,
     11,
     32,
     64,
     1,
     true,
     Activation::relu,
     1,
     false,
     {Kind::direct, 2, 2, 0, 3, 3, 1, 2, 2, 2, true}},
    {3, 2, 1, 9, 17, 20, 9, 1, true, Activation::leaky, 0.5f, true, {Kind::point, 1, 1}},
    {1, 1, 2, 5, 6, 80, 96, 1, false, Activation::relu, 1, false, {Kind::point, 1, 1}},
};

}  // namespace convolution_cases
