// Runs squared errors and their gradient in every instruction set that works here, on buffers of
// exactly their sizes, and compares them with plain loops. Prints what it ran.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/memory.h"

namespace {

using std::vector;

struct Shape {
    int64_t p, n, e;
};

// Sizes around every vector, and around the pieces whose sums are added in double.
const Shape kShapes[] = {{1, 1, 1}, {2, 3, 7}, {1, 2, 33}, {3, 2, 1024}, {2, 1, 1027}};

void check(bool right, const char* what, faigfast::Isa isa, const Shape& shape, int threads) {
    if (right) return;
    std::fprintf(stderr, "%s, %lld elements, %d threads: %s is wrong\n",
                 faigfast::name(isa).c_str(), (long long)shape.e, threads, what);
    std::exit(1);
}

void run(faigfast::Isa isa, const Shape& s, int threads) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    vector<float> y(s.p * s.n * s.e), gt(s.n * s.e), weights(s.p * s.n);
    for (vector<float>* values : {&y, &gt, &weights})
        for (float& value : *values) value = normal(bits);
    vector<float> losses(s.p * s.n, nan), most(s.p * s.n, nan), gy(y.size(), nan);
    faigfast::squared_error(isa, y.data(), gt.data(), losses.data(), most.data(), s.p, s.n, s.e,
                            threads);
    faigfast::squared_error_backward(isa, y.data(), gt.data(), weights.data(), gy.data(), s.p, s.n,
                                     s.e, threads);
    for (int64_t sample = 0; sample < s.p * s.n; ++sample) {
        double loss = 0, largest = 0;
        for (int64_t i = 0; i < s.e; ++i) {
            const float difference = y[sample * s.e + i] - gt[sample % s.n * s.e + i];
            loss += (double)difference * difference;
            largest = std::fmax(largest, std::fabs(difference));
            const float gradient = 2 * weights[sample] * difference;
            check(std::fabs(gy[sample * s.e + i] - gradient) <= 1e-6 * std::fabs(gradient),
                  "the gradient", isa, s, threads);
        }
        check(std::fabs(losses[sample] - loss) <= 1e-6 * loss, "a loss", isa, s, threads);
        check(most[sample] == (float)largest, "a largest difference", isa, s, threads);
    }
}

}  // namespace

int main() {
    for (faigfast::Isa isa : faigfast::supported()) {
        for (const Shape& shape : kShapes)
            for (int threads : {1, 2, 5}) run(isa, shape, threads);
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
    faigfast::free_cached();
    return faigfast::cached() != 0;
}
