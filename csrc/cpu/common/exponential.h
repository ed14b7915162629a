#pragma once

#include "vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// e^x for x ≤ 0, to two units in the last place; a result that would be denormal is 0, NaN stays
// NaN. Cody and Waite reduction by multiples of ln 2, then the polynomial of Cephes expf.
FAIGFAST_INLINE Vec exponential(Vec x) {
    constexpr float kLeast = -87.33f, kLog2E = 1.44269504f;
    constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    constexpr float kRound = 12582912.f;  // 1.5 · 2²³: adding it rounds to integers
    constexpr int32_t kRoundBits = 0x4b400000, kBias = 127, kMantissa = 23;
    const Vec within = x < kLeast ? broadcast(kLeast) : x;
    const Vec shifted = within * kLog2E + kRound;
    const Vec n = shifted - kRound;
    const Vec r = within - n * kLn2High - n * kLn2Low;
    Vec p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    const Vec power = (Vec)(((IntVec)shifted - (kRoundBits - kBias)) << kMantissa);
    return x < kLeast ? Vec{} : p * power;
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
