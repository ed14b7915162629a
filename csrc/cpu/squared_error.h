#pragma once

#include <stdint.h>

#include "isas.h"

#define FAIGFAST_DECLARE(isa)                                                                     \
    namespace faigfast::isa {                                                                     \
    void squared_error(const float* y, const float* gt, float* losses, float* most, int64_t p,    \
                       int64_t n, int64_t e, int threads);                                        \
    void squared_error_backward(const float* y, const float* gt, const float* weights, float* gy, \
                                int64_t p, int64_t n, int64_t e, int threads);                    \
    }

FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE
