#include "streaming.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "dispatch.h"
#include "memory.h"

namespace faigfast {
namespace {

std::atomic<bool> asks_ahead{false}, stores_past{false};
std::atomic<size_t> large{0};  // bytes of a thread; 0: those of its second cache
std::atomic<bool> settled{false};
std::mutex settling;

void use(Streaming how) {
    asks_ahead = how.ahead;
    stores_past = how.past;
}

size_t bytes(const PathConvolution& path) {
    const int64_t channels = std::max(path.inputs, path.outputs);
    return 4 *
           static_cast<size_t>(path.points * path.samples * path.height * path.width * channels);
}

bool is_large(const PathConvolution& path) {
    return bytes(path) / path.threads >= (large ? large.load() : second_cache());
}

// A layer of 64 channels between images that take turns, so many that caches hold few of them.
class Trial {
public:
    Trial(Isa isa, int threads)
        : isa_(isa),
          threads_(threads),
          points_(2 * (second_cache() * threads / (4 * kImage) + 1)),
          start_(static_cast<float*>(new_region(4 * floats()))) {
        std::fill_n(start_, floats(), 0.f);
    }
    ~Trial() { std::free(start_); }
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;

    // Seconds of a forward and a backward.
    double seconds(Streaming how) {
        use(how);
        float *w0 = start_ + kImages * size(), *dw = w0 + kWeights, *gw = dw + kWeights;
        PathConvolution path{points_, 1,         kSide,
                             kSide,   kChannels, kChannels,
                             kSide,   kSide,     {Kind::squares, 1, 1, 1, 1},
                             1};
        path.alpha = gw + kWeights;
        path.w0 = w0, path.dw = dw;
        path.activation = Activation::none;
        path.scale = 1;
        path.threads = threads_;
        ForwardArrays forward{next(), kImage};
        forward.y = next();
        BackwardArrays backward{next()};
        backward.x = next(), backward.x_point = kImage;
        backward.images = 1;
        backward.before = Activation::relu;
        backward.gx = next(), backward.gw = gw;
        const auto start = std::chrono::steady_clock::now();
        convolve(isa_, path, forward);
        convolve_backward(isa_, path, backward);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

private:
    static constexpr int64_t kSide = 48, kChannels = 64, kImages = 12;
    static constexpr int64_t kImage = kSide * kSide * kChannels;
    static constexpr int64_t kWeights = 9 * kChannels * kChannels;

    int64_t size() const { return points_ * kImage; }
    int64_t floats() const { return kImages * size() + 3 * kWeights + points_; }
    float* next() { return start_ + turn_++ % kImages * size(); }

    const Isa isa_;
    const int threads_;
    const int64_t points_;
    float* const start_;
    int64_t turn_ = 0;
};

// The first way, unless another one takes clearly less: what differs by less depends on the moment,
// and so do times that are not of the same round.
Streaming measured(Isa isa, int threads) {
    constexpr int kRounds = 5;
    std::vector<Streaming> ways = {{true, false}, {false, false}};
    if (isa == Isa::avx512) ways = {{true, true}, {false, true}, {true, false}, {false, false}};
    std::vector<std::vector<double>> ratios(ways.size());
    Trial trial(isa, threads);
    trial.seconds(ways[0]);
    for (int round = 0; round < kRounds; ++round) {
        const double first = trial.seconds(ways[0]);
        for (size_t i = 1; i < ways.size(); ++i)
            ratios[i].push_back(trial.seconds(ways[i]) / first);
    }
    Streaming found = ways[0];
    double least = 0.95;
    for (size_t i = 1; i < ways.size(); ++i) {
        std::sort(ratios[i].begin(), ratios[i].end());
        if (ratios[i][kRounds / 2] >= least) continue;
        least = ratios[i][kRounds / 2];
        found = ways[i];
    }
    return found;
}

}  // namespace

Streaming streaming(const PathConvolution& path) {
    return is_large(path) ? streaming() : Streaming{false, false};
}

Streaming streaming() { return {asks_ahead, stores_past}; }

bool is_settled() { return settled; }

void set_streaming(Streaming how, size_t from) {
    const std::lock_guard<std::mutex> lock(settling);
    use(how);
    large = from;
    settled = true;
}

void settle_streaming(Isa isa, const PathConvolution& path) {
    if (settled || !is_large(path)) return;
    // Who finds others measuring goes on: no bit depends on the way.
    const std::unique_lock<std::mutex> lock(settling, std::try_to_lock);
    if (!lock || settled) return;
    constexpr int kThreads = 8;
    Streaming found = {true, true};
    try {
        found = measured(isa, std::min(path.threads, kThreads));
    } catch (const std::bad_alloc&) {  // then unmeasured
    }
    use(found);
    settled = true;
}

}  // namespace faigfast
