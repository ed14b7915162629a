#pragma once

// The epilogue of a convolution: bias, activation and scale going forward, the mask of the
// preceding activation for an input gradient.

#include "activation_gradient.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

enum class Epilogue { none, relu, leaky, relu_mask, leaky_mask, factor_mask };

template <Epilogue kEpilogue>
struct EpilogueConstant {
    static constexpr Epilogue value = kEpilogue;
};

// Calls f with the epilogue as a compile-time constant.
template <typename F>
inline void with_epilogue(Epilogue epilogue, F f) {
    switch (epilogue) {
        case Epilogue::none:
            return f(EpilogueConstant<Epilogue::none>{});
        case Epilogue::relu:
            return f(EpilogueConstant<Epilogue::relu>{});
        case Epilogue::leaky:
            return f(EpilogueConstant<Epilogue::leaky>{});
        case Epilogue::relu_mask:
            return f(EpilogueConstant<Epilogue::relu_mask>{});
        case Epilogue::leaky_mask:
            return f(EpilogueConstant<Epilogue::leaky_mask>{});
        case Epilogue::factor_mask:
            return f(EpilogueConstant<Epilogue::factor_mask>{});
    }
}

// scale · act(value + bias).
template <Epilogue kEpilogue>
inline Vec activated(Vec value, Vec bias, Vec slope, Vec scale) {
    value += bias;
    // This order of the comparison lets NaN through.
    if (kEpilogue == Epilogue::relu) value = value < 0 ? Vec{} : value;
    if (kEpilogue == Epilogue::leaky) value = value > 0 ? value : value * slope;
    return value * scale;
}

constexpr bool masks_output(Epilogue epilogue) { return epilogue >= Epilogue::relu_mask; }

// The gradient at the input of the activation whose output, or factors, are `saved`.
template <Epilogue kEpilogue>
inline Vec mask_output(Vec gradient, Vec saved, Vec slope) {
    constexpr GradientMask mask = kEpilogue == Epilogue::relu_mask    ? GradientMask::relu
                                  : kEpilogue == Epilogue::leaky_mask ? GradientMask::leaky
                                                                      : GradientMask::factor;
    return masked<mask>(gradient, saved, 1, slope);
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
