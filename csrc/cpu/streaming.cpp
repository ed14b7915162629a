#include "streaming.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "memory.h"

namespace faigfast {
namespace {

std::atomic<bool> ahead{false}, past{false};
std::atomic<size_t> least_bytes{second_cache()};  // of a thread
std::atomic<bool> settled{false};
std::mutex settling;

void use(Streaming how) {
    ahead = how.ahead;
    past = how.past;
}

// A layer of 64 channels between images that take turns, so that none is in a cache when it is
// needed again.
class Trial {
public:
    Trial(Isa isa, int threads)
        : isa_(isa),
          threads_(threads),
          points_(2 * (static_cast<int64_t>(least_bytes) * threads / (4 * kImage) + 1)),
          scratch_(4 * floats()),
          start_(scratch_.floats()) {
        std::fill_n(start_, floats(), 0.f);
    }

    // Seconds of a forward and a backward.
    double seconds(Streaming how) {
        use(how);
        const auto start = std::chrono::steady_clock::now();
        const PathConvolution path = layer();
        convolve(isa_, path, {next(), kImage, 0, nullptr, 0, next()});
        const float* x = next();
        float* weights = start_ + kImages * size();
        convolve_backward(isa_, path,
                          {next(), nullptr, x, kImage, 0, 1, nullptr, 0, Activation::relu, 0,
                           next(), weights + 3 * kWeights, nullptr, nullptr});
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

private:
    static constexpr int64_t kSide = 48, kChannels = 64, kImages = 6;
    static constexpr int64_t kImage = kSide * kSide * kChannels;
    static constexpr int64_t kWeights = 9 * kChannels * kChannels;

    int64_t size() const { return points_ * kImage; }
    int64_t floats() const { return kImages * size() + 4 * kWeights + points_; }
    float* next() { return start_ + turn_++ % kImages * size(); }
    PathConvolution layer() const {
        const float* weights = start_ + kImages * size();
        return {points_,   1,
                kSide,     kSide,
                kChannels, kChannels,
                1,         weights + 4 * kWeights,
                weights,   weights + kWeights,
                nullptr,   nullptr,
                nullptr,   nullptr,
                false,     Activation::none,
                0,         1,
                threads_};
    }

    const Isa isa_;
    const int threads_;
    const int64_t points_;
    const Scratch scratch_;
    float* const start_;
    int64_t turn_ = 0;
};

// The first way, unless another one takes clearly less: what differs by less depends on the moment.
Streaming measured(Isa isa, int threads) {
    constexpr int kRepeats = 4;
    constexpr double kClearly = 0.95;
    std::vector<Streaming> ways = {{true, false}, {false, false}};
    if (isa == Isa::avx512) ways = {{true, true}, {false, true}, {true, false}, {false, false}};
    std::vector<double> best(ways.size(), 1e9);
    Trial trial(isa, threads);
    for (int repeat = 0; repeat < kRepeats; ++repeat)
        for (size_t i = 0; i < ways.size(); ++i)
            best[i] = std::min(best[i], trial.seconds(ways[i]));
    const auto least = std::min_element(best.begin(), best.end());
    return *least < kClearly * best[0] ? ways[least - best.begin()] : ways[0];
}

}  // namespace

Streaming streaming(int64_t bytes, int threads) {
    if (bytes < static_cast<int64_t>(least_bytes) * threads) return {false, false};
    return {ahead, past};
}

void set_streaming(Streaming how, size_t from) {
    const std::lock_guard<std::mutex> lock(settling);
    use(how);
    least_bytes = from;
    settled = true;
}

void settle_streaming(Isa isa, const PathConvolution& path) {
    if (settled) return;
    const int64_t channels = std::max(path.inputs, path.outputs);
    const int64_t pixels = path.points * path.samples * path.height * path.width;
    if (4 * pixels * channels < static_cast<int64_t>(least_bytes) * path.threads) return;
    const std::lock_guard<std::mutex> lock(settling);
    if (settled) return;
    use(measured(isa, std::min(path.threads, 8)));
    settled = true;
}

}  // namespace faigfast
