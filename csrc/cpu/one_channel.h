#pragma once

#include <stdint.h>

#include "isas.h"
#include "path_convolution.h"

namespace faigfast {

// A 3×3 convolution of the same size, where one input channel differs from a known image: what that
// changes is added to the known result. r = shuffle; a result is [r·height, r·width, channels].
struct OneChannel {
    int64_t samples, height, width, channels, shuffle;
    const float* change;    // [samples, height, width]
    const float* w;         // [r², 9, channels], the taps of that input channel
    const float* known;     // one result, before the activation
    const float* residual;  // one result, or null
    float* y;               // [samples, result]: scale · act(known + conv(change)) + residual
    Activation activation;
    float slope, scale;
    int threads;
};

}  // namespace faigfast

#define FAIGFAST_DECLARE(isa)                  \
    namespace faigfast::isa {                  \
    void one_channel(const OneChannel& layer); \
    }

FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE
