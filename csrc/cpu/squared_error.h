#pragma once

#include <stdint.h>

// squared_error.cpp is compiled once per instruction set, each time into a namespace of its own.
#define FAIGFAST_DECLARE(isa)                                                                     \
    namespace faigfast::isa {                                                                     \
    void squared_error(const float* y, const float* gt, float* losses, float* most, int64_t p,    \
                       int64_t n, int64_t e, int threads);                                        \
    void squared_error_backward(const float* y, const float* gt, const float* weights, float* gy, \
                                int64_t p, int64_t n, int64_t e, int threads);                    \
    }

FAIGFAST_DECLARE(portable)
#ifdef FAIGFAST_X86
FAIGFAST_DECLARE(avx2)
FAIGFAST_DECLARE(avx512)
#endif
#undef FAIGFAST_DECLARE
