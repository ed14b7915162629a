#include "streaming.h"

#include <algorithm>
#include <atomic>

#include "dispatch.h"
#include "memory.h"

namespace faigfast {
namespace {

// The images of all layers of a chunk take a hundred MiB and more. Where the L3 cache (32 MiB) does
// not hold them, streaming saves 6 to 20 %; where it does (300 MiB), streaming costs 5 to 12 %.
constexpr size_t kHoldsAll = size_t{128} << 20;

std::atomic<bool>& large_layers_stream() {
    static std::atomic<bool> chosen{l3_size() < kHoldsAll};
    return chosen;
}

std::atomic<size_t> large{0};  // bytes a thread; 0: the size of the L2 cache

size_t bytes(const PathConvolution& path) {
    const int64_t channels = std::max(path.inputs, path.outputs);
    return 4 *
           static_cast<size_t>(path.points * path.samples * path.height * path.width * channels);
}

}  // namespace

bool streams(const PathConvolution& path) {
    return streaming() && bytes(path) / path.threads >= (large ? large.load() : l2_size());
}

bool streaming() { return large_layers_stream(); }

void set_streaming(bool large_layers, size_t from) {
    large_layers_stream() = large_layers;
    large = from;
}

}  // namespace faigfast
