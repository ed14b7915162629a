#pragma once

#include <stdint.h>

// score_reduction.cpp is compiled once per instruction set, each time into a namespace of its own.
#define FAIGFAST_DECLARE(isa)                                                                 \
    namespace faigfast::isa {                                                                 \
    void score_reduction(const float* total, const float* delta, float* scores, int64_t n,    \
                         int64_t f, int64_t k, int threads);                                  \
    void score_reduction(const double* total, const double* delta, double* scores, int64_t n, \
                         int64_t f, int64_t k, int threads);                                  \
    }

FAIGFAST_DECLARE(portable)
#ifdef FAIGFAST_X86
FAIGFAST_DECLARE(avx2)
FAIGFAST_DECLARE(avx512)
#endif
#undef FAIGFAST_DECLARE
