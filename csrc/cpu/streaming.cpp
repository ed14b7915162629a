#include "streaming.h"

#include <algorithm>
#include <atomic>

#include "dispatch.h"
#include "memory.h"

namespace faigfast {
namespace {

// A third cache of 32 MiB does not hold the images of all layers of a chunk, of which there are a
// hundred MiB and more, and streaming saves 6 to 20 % there; one of 300 MiB does, and it costs 5 to
// 12 %.
constexpr size_t kHoldsAll = size_t{128} << 20;

std::atomic<bool>& large_layers_stream() {
    static std::atomic<bool> chosen{third_cache() < kHoldsAll};
    return chosen;
}

std::atomic<size_t> large{0};  // bytes of a thread; 0: those of its second cache

size_t bytes(const PathConvolution& path) {
    const int64_t channels = std::max(path.inputs, path.outputs);
    return 4 *
           static_cast<size_t>(path.points * path.samples * path.height * path.width * channels);
}

}  // namespace

bool streams(const PathConvolution& path) {
    return streaming() && bytes(path) / path.threads >= (large ? large.load() : second_cache());
}

bool streaming() { return large_layers_stream(); }

void set_streaming(bool large_layers, size_t from) {
    large_layers_stream() = large_layers;
    large = from;
}

}  // namespace faigfast
