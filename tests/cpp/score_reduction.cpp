// Runs the score reduction of every instruction set that works here on buffers of exactly its
// sizes, under sanitizers, and compares it with a plain loop. Prints what it ran.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "../../csrc/cpu/dispatch.h"

namespace {

struct Shape {
    int64_t n, f, k;
};

// Sizes around every vector width and the task of 4096 kernels; the last two use several threads.
const Shape kShapes[] = {
    {0, 3, 9},  {2, 0, 9},   {2, 3, 0},   {1, 1, 1},   {1, 1, 9},    {1, 2, 3},    {3, 5, 9},
    {2, 3, 7},  {2, 4, 8},   {2, 7, 15},  {2, 8, 16},  {1, 9, 17},   {3, 15, 25},  {2, 16, 31},
    {1, 17, 4}, {1, 33, 81}, {2, 100, 1}, {2, 31, 49}, {1, 5, 1001}, {3, 4097, 9}, {2, 8195, 5},
};
const int kThreads[] = {1, 2, 3, 5};
const int64_t kOffsets[] = {0, 1, 3};  // elements past an address that malloc aligned

// Its data ends where its memory ends, so that the sanitizer sees a read or write past the end.
template <typename T>
struct Buffer {
    Buffer(int64_t size, int64_t offset)
        : memory(new T[size + offset]), data(memory.get() + offset) {}
    std::unique_ptr<T[]> memory;
    T* data;
};

template <typename T>
void check(faigfast::Isa isa, Shape shape, int64_t offset) {
    const auto [n, f, k] = shape;
    Buffer<T> total(n * f * k, offset), delta(f * k, offset), scores(n * f, offset);
    std::mt19937 bits(1);
    std::normal_distribution<T> normal;
    for (int64_t i = 0; i < n * f * k; ++i) total.data[i] = normal(bits);
    for (int64_t i = 0; i < f * k; ++i) delta.data[i] = normal(bits);

    for (int threads : kThreads) {
        for (int64_t i = 0; i < n * f; ++i) scores.data[i] = std::numeric_limits<T>::quiet_NaN();
        faigfast::score_reduction(isa, total.data, delta.data, scores.data, n, f, k, threads);
        for (int64_t i = 0; i < n * f; ++i) {
            double expected = 0;
            for (int64_t j = 0; j < k; ++j)
                expected += std::abs((double)delta.data[i % f * k + j] * total.data[i * k + j]);
            // All terms have one sign, so the error is at most one rounding for each. NaN fails.
            const double bound = (k + 1) * (double)std::numeric_limits<T>::epsilon() * expected;
            if (!(std::abs(scores.data[i] - expected) <= bound)) {
                std::fprintf(stderr,
                             "%s, %zu bytes, n %lld, f %lld, k %lld, offset %lld, %d threads: "
                             "score %lld is %.17g, expected %.17g\n",
                             faigfast::name(isa).c_str(), sizeof(T), (long long)n, (long long)f,
                             (long long)k, (long long)offset, threads, (long long)i,
                             (double)scores.data[i], expected);
                std::exit(1);
            }
        }
    }
}

}  // namespace

int main() {
    for (faigfast::Isa isa : faigfast::supported()) {
        for (Shape shape : kShapes)
            for (int64_t offset : kOffsets) {
                check<float>(isa, shape, offset);
                check<double>(isa, shape, offset);
            }
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
}
