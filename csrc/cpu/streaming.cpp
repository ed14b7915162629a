#include "streaming.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "memory.h"

namespace faigfast {
namespace {

constexpr size_t kRow = 4;       // layers in a row with one way; the first is not counted
constexpr size_t kSamples = 5;   // of each way, for layers of equal channels
constexpr double kLeast = 0.97;  // of the first way's time, for another one to win

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

std::vector<Streaming> ways(Isa isa) {
    if (isa == Isa::avx512) return {{false, false}, {true, true}, {false, true}, {true, false}};
    return {{false, false}, {true, false}};
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// The state of the comparison, under the lock.
class Comparison {
public:
    // Chooses the way of the next layer; whether its time counts.
    bool next(Isa isa) {
        if (ways_.empty()) ways_ = ways(isa);
        const size_t place = layers_++ % (kRow * ways_.size());
        way_ = place / kRow;
        use(ways_[way_]);
        return place % kRow != 0;
    }

    void add(const PathConvolution& path, bool backward, double seconds) {
        const double pixels =
            static_cast<double>(path.points * path.samples * path.height * path.width);
        const Key key{backward, path.inputs, path.outputs, path.kernel.taps(), path.threads};
        auto& own = times_[key];
        own[way_].push_back(seconds / pixels);
        const auto enough = [](const auto& one) { return one.size() >= kSamples; };
        if (!std::all_of(own.begin(), own.begin() + ways_.size(), enough)) return;
        for (size_t i = 0; i < ways_.size(); ++i) medians_[backward][i] = median(own[i]);
        known_[backward] = true;
    }

    // Whether forward and backward were compared, which then have one way.
    bool settle() {
        if (!known_[0] || !known_[1]) return false;
        size_t best = 0;
        double least = kLeast;
        for (size_t i = 1; i < ways_.size(); ++i) {
            const double ratio =
                (medians_[0][i] + medians_[1][i]) / (medians_[0][0] + medians_[1][0]);
            if (ratio < least) least = ratio, best = i;
        }
        use(ways_[best]);
        times_.clear();
        return true;
    }

private:
    using Key = std::tuple<bool, int64_t, int64_t, int64_t, int>;

    std::vector<Streaming> ways_;
    size_t layers_ = 0, way_ = 0;
    std::map<Key, std::array<std::vector<double>, 4>> times_;
    std::array<std::array<double, 4>, 2> medians_{};
    std::array<bool, 2> known_{};
};

Comparison comparison;

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

LayerTiming::LayerTiming(Isa isa, const PathConvolution& path, bool backward)
    : path_(path), backward_(backward) {
    if (settled || !is_large(path)) return;
    // No bit depends on the way, so that nobody waits for who measures.
    const std::unique_lock<std::mutex> lock(settling, std::try_to_lock);
    if (!lock || settled) return;
    counts_ = comparison.next(isa);
    start_ = std::chrono::steady_clock::now();
}

LayerTiming::~LayerTiming() {
    if (!counts_) return;
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start_;
    const std::unique_lock<std::mutex> lock(settling, std::try_to_lock);
    if (!lock || settled) return;
    comparison.add(path_, backward_, time.count());
    if (comparison.settle()) settled = true;
}

}  // namespace faigfast
