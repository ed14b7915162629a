// The peak rate of multiply-adds on a core, against which kernels are measured.

#include "common/parallel.h"
#include "common/vector.h"
#include "path_convolution.h"

#if defined(__AVX512F__)
#define FAIGFAST_REGISTER(vector) "+v"(vector)
#elif defined(__SSE2__)
#define FAIGFAST_REGISTER(vector) "+x"(vector)
#elif defined(__aarch64__)
#define FAIGFAST_REGISTER(vector) "+w"(vector)
#else
#define FAIGFAST_REGISTER(vector) "+m"(vector)
#endif

namespace faigfast::FAIGFAST_ISA {

// 2 · 8 · 12 · lanes · rounds operations in each thread; without the result the compiler would
// remove them.
int64_t multiply_add(int64_t rounds, int threads, float* result) {
#pragma omp parallel num_threads(threads)
    {
        Vec sums[12];
        for (Vec& sum : sums) sum = Vec{};
        const Vec factor = broadcast(0.5f), one = broadcast(1.f + thread_id());
        for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 8
            for (int repeat = 0; repeat < 8; ++repeat)
#pragma GCC unroll 12
                for (Vec& sum : sums) {
                    sum = sum * factor + one;
                    __asm__ volatile("" : FAIGFAST_REGISTER(sum));  // keeps rounds apart
                }
        float total = 0;
        for (const Vec& sum : sums) total += sum[0];
        if (thread_id() == 0) *result = total;
    }
    return 2 * 8 * 12 * kLanes * rounds * threads;
}

}  // namespace faigfast::FAIGFAST_ISA
