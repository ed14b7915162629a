// The Hopper convolution against sums in double on the device, and its speed.

#include <cuda_fp16.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "api.h"
#include "checks.h"
#include "memory.cuh"

namespace {

using faigfast::cuda::Activation;
using faigfast::cuda::Convolution64;
using faigfast::cuda::Type;

constexpr int kChannels = 64, kTaps = 9;

struct Shape {
    const char* name;
    int points, samples, height, width;
    bool shared, residual, residual_shared, bias;
    Activation activation;
    float slope, scale;
};

const Shape kShapes[] = {
    {"one tile", 1, 1, 16, 16, false, false, false, false, Activation::none, 0, 1},
    {"one pixel", 1, 1, 1, 1, false, false, false, true, Activation::none, 0, 1},
    {"one row", 2, 1, 1, 37, false, false, false, true, Activation::relu, 0, 1},
    {"one column", 2, 1, 37, 1, false, true, false, true, Activation::none, 0, 1},
    {"odd edges", 3, 2, 65, 47, false, false, false, true, Activation::relu, 0, 1},
    {"shared input", 5, 1, 33, 31, true, false, false, true, Activation::relu, 0, 1},
    {"residual", 3, 2, 31, 50, false, true, false, true, Activation::none, 0, 0.5f},
    {"shared residual", 4, 1, 31, 50, false, true, true, true, Activation::none, 0, 0.5f},
    {"leaky", 2, 3, 17, 18, false, false, false, true, Activation::leaky, 0.5f, 1},
    {"more points than blocks", 200, 1, 8, 8, false, false, false, true, Activation::relu, 0, 1},
    {"several tiles a block", 4, 16, 48, 48, false, true, false, true, Activation::none, 0, 1},
    {"large", 3, 1, 250, 260, false, false, false, true, Activation::relu, 0, 1},
    {"photograph", 1, 1, 678, 1020, false, true, false, true, Activation::none, 0, 1},
};
static_assert(sizeof(kShapes) / sizeof(*kShapes) == 13, "the document says 13");

__device__ uint32_t hashed(uint64_t i, uint32_t seed) {
    uint64_t z = i * 0x9e3779b97f4a7c15ull + seed * 0xd1b54a32d192ed03ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    return static_cast<uint32_t>(z >> 32);
}

// Integers from −2 to 2, or values of any size from −1 to 1 times `gain`.
template <class T>
__global__ void fill(T* to, int64_t count, bool integers, uint32_t seed, float gain) {
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
         i += int64_t(gridDim.x) * blockDim.x) {
        const uint32_t h = hashed(i, seed);
        const float value = integers ? float(h % 5) - 2 : gain * (h / 2147483648.0f - 1);
        to[i] = T(value);
    }
}

// Sums in double, one thread an output; counts what differs and adds squares up.
__global__ void compare(Convolution64 c, bool exactly, unsigned long long* wrong, double* squares) {
    const int64_t pixels = c.points * c.samples * c.height * c.width;
    const auto* x = static_cast<const __half*>(c.x);
    const auto* gamma = static_cast<const __half*>(c.gamma);
    const auto* residual = static_cast<const __half*>(c.residual);
    const auto* y = static_cast<const __half*>(c.y);
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < pixels * kChannels;
         i += int64_t(gridDim.x) * blockDim.x) {
        const int output = i % kChannels;
        const int64_t pixel = i / kChannels, column = pixel % c.width;
        const int64_t row = pixel / c.width % c.height;
        const int64_t sample = pixel / (c.width * c.height), point = sample / c.samples;
        const int64_t of_x = c.shared ? sample % c.samples : sample;
        const int64_t of_residual = c.residual_shared ? sample % c.samples : sample;
        double sum = c.bias ? c.bias[point * kChannels + output] : 0;
        for (int tap = 0; tap < kTaps; ++tap) {
            const int64_t r = row + tap / 3 - 1, q = column + tap % 3 - 1;
            if (r < 0 || r >= c.height || q < 0 || q >= c.width) continue;
            const __half* in = x + ((of_x * c.height + r) * c.width + q) * kChannels;
            const __half* w = gamma + ((point * kChannels + output) * kTaps + tap) * kChannels;
            for (int k = 0; k < kChannels; ++k)
                sum += double(__half2float(in[k])) * double(__half2float(w[k]));
        }
        if (c.activation == Activation::relu && sum < 0) sum = 0;
        if (c.activation == Activation::leaky && sum < 0) sum *= c.slope;
        sum *= c.scale;
        if (residual) {
            const int64_t at = (of_residual * c.height + row) * c.width + column;
            sum += __half2float(residual[at * kChannels + output]);
        }
        const float got = __half2float(y[i]);
        if (exactly) {
            if (!(got == __half2float(__double2half(sum)))) atomicAdd(wrong, 1ull);
        } else {
            atomicAdd(squares, (got - sum) * (got - sum));
            atomicAdd(squares + 1, sum * sum);
        }
    }
}

struct Problem {
    Convolution64 given{};
    Memory<__half> x, gamma, residual, y;
    Memory<float> bias;

    explicit Problem(const Shape& s)
        : x(size_t(s.shared ? 1 : s.points) * s.samples * s.height * s.width * kChannels),
          gamma(size_t(s.points) * kChannels * kTaps * kChannels),
          residual(size_t(s.points) * s.samples * s.height * s.width * kChannels),
          y(size_t(s.points) * s.samples * s.height * s.width * kChannels),
          bias(size_t(s.points) * kChannels) {
        given.type = Type::fp16;
        given.points = s.points;
        given.samples = s.samples;
        given.height = s.height;
        given.width = s.width;
        given.shared = s.shared;
        given.residual_shared = s.residual_shared;
        given.x = x.at;
        given.gamma = gamma.at;
        given.bias = s.bias ? bias.at : nullptr;
        given.residual = s.residual ? residual.at : nullptr;
        given.y = y.at;
        given.activation = s.activation;
        given.slope = s.slope;
        given.scale = s.scale;
    }

    void draw(bool integers) {
        fill<<<1024, 256>>>(x.at, x.count, integers, 1, 1);
        fill<<<1024, 256>>>(gamma.at, gamma.count, integers, 2, 1 / 24.0f);
        fill<<<1024, 256>>>(residual.at, residual.count, integers, 3, 1);
        fill<<<1024, 256>>>(bias.at, bias.count, integers, 4, 1);
        must(cudaGetLastError(), "fill");
    }

    void run(cudaStream_t stream = nullptr) { faigfast::cuda::convolution64({0, stream}, given); }
};

bool shape_is_right(const Shape& shape, int repeats) {
    Problem problem(shape);
    Memory<unsigned long long> wrong(1);
    Memory<double> squares(2);
    unsigned long long differing = 0;
    problem.draw(true);
    for (int repeat = 0; repeat < repeats; ++repeat) {  // races are random
        problem.y.poison();
        problem.run();
        must(cudaMemset(wrong.at, 0, 8), "cudaMemset");
        compare<<<2048, 256>>>(problem.given, true, wrong.at, squares.at);
        must(cudaGetLastError(), "compare");
        unsigned long long more = 0;
        must(cudaMemcpy(&more, wrong.at, 8, cudaMemcpyDeviceToHost), "convolution64");
        differing += more;
    }
    problem.draw(false);
    problem.y.poison();
    problem.run();
    must(cudaMemset(squares.at, 0, 16), "cudaMemset");
    compare<<<2048, 256>>>(problem.given, false, wrong.at, squares.at);
    double sums[2];
    must(cudaMemcpy(sums, squares.at, 16, cudaMemcpyDeviceToHost), "convolution64");
    const double error = sums[0] / sums[1];  // squared
    const bool right = differing == 0 && error <= 2e-3 * 2e-3;
    std::printf(
        "{\"name\": \"%s\", \"right\": %s, \"differing\": %llu, \"squared error\": %s%.3e%s}\n",
        shape.name, right ? "true" : "false", differing, error == error ? "" : "\"", error,
        error == error ? "" : "\"");
    return right;
}

}  // namespace

bool shapes() {
    bool right = true;
    for (const Shape& shape : kShapes) right = shape_is_right(shape, 5) && right;
    return right;
}

bool small_shape() { return shape_is_right(kShapes[4], 1); }

// Several problems that fill the L2 more than once are captured together and replayed.
void speed() {
    constexpr int kSets = 4, kReplays = 20;
    const Shape sizes[] = {
        {"8×256²", 8, 1, 256, 256, false, false, false, true, Activation::relu, 0, 1},
        {"64×48²", 4, 16, 48, 48, false, false, false, true, Activation::relu, 0, 1},
    };
    for (const Shape& size : sizes) {
        const double pixels = double(size.points) * size.samples * size.height * size.width;
        const int sets = size.height == 48 ? 3 * kSets : kSets;
        std::vector<Problem*> problems;
        for (int i = 0; i < sets; ++i) {
            problems.push_back(new Problem(size));
            problems.back()->draw(false);
            problems.back()->run();
        }
        cudaStream_t stream;
        cudaGraph_t graph;
        cudaGraphExec_t replay;
        cudaEvent_t events[2];
        must(cudaDeviceSynchronize(), "warm-up");
        must(cudaStreamCreate(&stream), "cudaStreamCreate");
        must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture");
        for (Problem* problem : problems) problem->run(stream);
        must(cudaStreamEndCapture(stream, &graph), "capture");
        must(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
        for (cudaEvent_t& event : events) must(cudaEventCreate(&event), "cudaEventCreate");
        must(cudaGraphLaunch(replay, stream), "replay");
        must(cudaEventRecord(events[0], stream), "cudaEventRecord");
        for (int i = 0; i < kReplays; ++i) must(cudaGraphLaunch(replay, stream), "replay");
        must(cudaEventRecord(events[1], stream), "cudaEventRecord");
        must(cudaStreamSynchronize(stream), "replay");
        float milliseconds = 0;
        must(cudaEventElapsedTime(&milliseconds, events[0], events[1]), "cudaEventElapsedTime");
        const double seconds = milliseconds / 1e3 / kReplays / sets;
        std::printf("{\"name\": \"%s\", \"seconds\": %.4e, \"flops\": %.6e}\n", size.name, seconds,
                    2 * pixels * kTaps * kChannels * kChannels);
        for (Problem* problem : problems) delete problem;
    }
}
