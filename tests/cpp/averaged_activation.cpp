// Runs averaged activations in every instruction set that works here, on buffers of exactly their
// sizes, and compares the mean slopes with sums over many places of each cell. Prints what it ran.

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

constexpr int kPlaces = 20000;

// The mean slope of the ways from z to both ends, place by place.
double expected(double z, double before, double after, const float* c, double slope) {
    double share = 0;
    for (int i = 0; i < kPlaces; ++i) {
        const double way = (i + 0.5) / kPlaces;
        const double first = z + way * c[0] * (before - z), last = z + way * c[1] * (after - z);
        share += (c[2] * (first > 0) + (1 - c[2]) * (last > 0)) / kPlaces;
    }
    return slope + (1 - slope) * share;
}

void run(faigfast::Isa isa, int64_t points, int64_t elements, float slope, bool in_place,
         int threads) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform(0, 1);
    vector<float> z(points * elements), coefficients(3 * points);
    for (float& value : z) value = normal(bits);
    for (float& value : coefficients) value = uniform(bits);
    vector<int64_t> neighbours(2 * points);
    for (int64_t p = 0; p < points; ++p) {
        neighbours[2 * p] = p ? p - 1 : (points > 1);
        neighbours[2 * p + 1] = p + 1 < points ? p + 1 : p - (p > 0);
    }
    const float nan = std::numeric_limits<float>::quiet_NaN();
    vector<float> y = in_place ? z : vector<float>(z.size(), nan), factors(z.size(), nan);
    faigfast::averaged_activation(
        isa, {points, elements, in_place ? y.data() : z.data(), y.data(), factors.data(),
              neighbours.data(), coefficients.data(), slope, threads});
    for (int64_t i = 0; i < points * elements; ++i) {
        const int64_t p = i / elements, e = i % elements;
        const double right =
            expected(z[i], z[neighbours[2 * p] * elements + e],
                     z[neighbours[2 * p + 1] * elements + e], &coefficients[3 * p], slope);
        const float activated = z[i] > 0 ? z[i] : z[i] * slope;
        if (std::fabs(factors[i] - right) <= 2e-4 && y[i] == activated) continue;
        std::fprintf(stderr, "%s, %d threads: factor %g, expected %g; y %g, expected %g\n",
                     faigfast::name(isa).c_str(), threads, factors[i], right, y[i], activated);
        std::exit(1);
    }
}

}  // namespace

int main() {
    for (faigfast::Isa isa : faigfast::supported()) {
        for (int64_t points : {1, 2, 5})
            for (int64_t elements : {1, 7, 16, 1029})
                run(isa, points, elements, points == 2 ? 0.2f : 0, elements % 2, 1 + elements % 3);
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
    faigfast::free_cached();
    return faigfast::cached() != 0;
}
