// Runs a change of one input channel in every instruction set that works here, on buffers of
// exactly their sizes, and compares it with plain loops. Prints what it ran.

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

struct Case {
    int64_t samples, height, width, channels, shuffle;
    faigfast::Activation activation;
    bool residual;
};

// Widths around the pixels in registers, channels around every vector.
const Case kCases[] = {
    {1, 1, 1, 1, 1, faigfast::Activation::none, false},
    {3, 4, 5, 16, 1, faigfast::Activation::relu, true},
    {2, 3, 8, 35, 1, faigfast::Activation::leaky, false},
    {2, 5, 9, 7, 2, faigfast::Activation::leaky, true},
    {1, 2, 3, 17, 3, faigfast::Activation::none, true},
};

float expected(const Case& c, const faigfast::OneChannel& layer, int64_t sample, int64_t y,
               int64_t x, int64_t phase, int64_t channel, int64_t place) {
    double sum = layer.known[place];
    for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t from_y = y + tap / 3 - 1, from_x = x + tap % 3 - 1;
        if (from_y < 0 || from_y >= c.height || from_x < 0 || from_x >= c.width) continue;
        sum += (double)layer.w[(phase * 9 + tap) * c.channels + channel] *
               layer.change[(sample * c.height + from_y) * c.width + from_x];
    }
    if (sum < 0 && c.activation == faigfast::Activation::relu) sum = 0;
    if (sum < 0 && c.activation == faigfast::Activation::leaky) sum *= layer.slope;
    return (float)(sum * layer.scale + (c.residual ? layer.residual[place] : 0));
}

void run(faigfast::Isa isa, const Case& c, int threads) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    const int64_t r = c.shuffle, result = c.height * r * c.width * r * c.channels;
    vector<float> change(c.samples * c.height * c.width), w(r * r * 9 * c.channels);
    vector<float> known(result), residual(result);
    for (vector<float>* values : {&change, &w, &known, &residual})
        for (float& value : *values) value = normal(bits);
    vector<float> y(c.samples * result, std::numeric_limits<float>::quiet_NaN());
    const faigfast::OneChannel layer{c.samples,
                                     c.height,
                                     c.width,
                                     c.channels,
                                     r,
                                     change.data(),
                                     w.data(),
                                     known.data(),
                                     c.residual ? residual.data() : nullptr,
                                     y.data(),
                                     c.activation,
                                     0.2f,
                                     0.5f,
                                     threads};
    faigfast::one_channel(isa, layer);
    for (int64_t i = 0; i < c.samples * result; ++i) {
        const int64_t place = i % result, pixel = place / c.channels;
        const int64_t row = pixel / (c.width * r), column = pixel % (c.width * r);
        const float right = expected(c, layer, i / result, row / r, column / r,
                                     row % r * r + column % r, place % c.channels, place);
        if (std::fabs(y[i] - right) <= 1e-5 * (1 + std::fabs(right))) continue;
        std::fprintf(stderr, "%s, %lld channels, %d threads: %g, expected %g\n",
                     faigfast::name(isa).c_str(), (long long)c.channels, threads, y[i], right);
        std::exit(1);
    }
}

}  // namespace

int main() {
    for (faigfast::Isa isa : faigfast::supported()) {
        for (const Case& one : kCases)
            for (int threads : {1, 2, 5}) run(isa, one, threads);
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
    faigfast::free_cached();
    return faigfast::cached() != 0;
}
