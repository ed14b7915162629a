#pragma once

#include <stdint.h>

#include "isas.h"

#define FAIGFAST_DECLARE(isa)                                                                 \
    namespace faigfast::isa {                                                                 \
    void score_reduction(const float* total, const float* delta, float* scores, int64_t n,    \
                         int64_t f, int64_t k, int threads);                                  \
    void score_reduction(const double* total, const double* delta, double* scores, int64_t n, \
                         int64_t f, int64_t k, int threads);                                  \
    }

FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE
