#pragma once

// Static division of work among threads.

#include <stdint.h>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace faigfast::FAIGFAST_ISA {
namespace {

struct Range {
    int64_t begin, end;

    int64_t size() const { return end - begin; }
};

// The id-th of `count` nearly equal shares. The same total gives the same share, so that a thread
// reads in one layer what it wrote in the layer before.
inline Range share(Range all, int id, int count) {
    return {all.begin + all.size() * id / count, all.begin + all.size() * (id + 1) / count};
}

inline Range share(int64_t total, int id, int count) { return share({0, total}, id, count); }

#ifdef _OPENMP
inline int thread_id() { return omp_get_thread_num(); }
inline int thread_count() { return omp_get_num_threads(); }
#else
inline int thread_id() { return 0; }
inline int thread_count() { return 1; }
#endif

// Lets every thread call work().
template <typename Work>
void run_in_parallel(int threads, const Work& work) {
#pragma omp parallel num_threads(threads)
    work();
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Splits a range of units, tiles or rows, by the point or sample they belong to, `of_point` units
// each. Calls f(point, units), with units counted from the first of that point.
template <typename F>
void each_point(Range units, int64_t of_point, F f) {
    while (units.begin < units.end) {
        const int64_t point = units.begin / of_point, first = units.begin % of_point;
        const int64_t count = least(of_point - first, units.size());
        f(point, Range{first, first + count});
        units.begin += count;
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
