#include "denormals.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace faigfast {
namespace {

#if defined(__SSE2__)
constexpr uint64_t kFlush = 0x8040;  // flush results, and read denormals as 0
uint64_t control_word() { return _mm_getcsr(); }
void set_control_word(uint64_t word) { _mm_setcsr(static_cast<unsigned>(word)); }
#elif defined(__aarch64__)
constexpr uint64_t kFlush = uint64_t{1} << 24;
uint64_t control_word() {
    uint64_t word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
void set_control_word(uint64_t word) { asm volatile("msr fpcr, %0" ::"r"(word)); }
#else
constexpr uint64_t kFlush = 0;
uint64_t control_word() { return 0; }
void set_control_word(uint64_t) {}
#endif

// Calls f(id) in every thread of a team; a team of one needs no OpenMP.
template <typename F>
void in_team(int threads, F f) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        f(static_cast<size_t>(omp_get_thread_num()));
        return;
    }
#endif
    f(size_t{0});
}

}  // namespace

ControlWords flush_denormals(int threads) {
    ControlWords before(static_cast<size_t>(threads), control_word());
    in_team(threads, [&](size_t id) {
        before[id] = control_word();
        set_control_word(before[id] | kFlush);
    });
    return before;
}

void set_control_words(const ControlWords& words) {
    in_team(static_cast<int>(words.size()), [&](size_t id) { set_control_word(words[id]); });
}

}  // namespace faigfast
