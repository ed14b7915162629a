#include "memory.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace faigfast {
namespace {

constexpr size_t kPage = size_t{1} << 12, kHugePage = size_t{1} << 21;

std::mutex mutex;
std::vector<Memory> free_blocks;

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

Memory allocate(size_t bytes) {
    // Where huge pages would waste little.
    const size_t unit = bytes >= 4 * kHugePage ? kHugePage : kPage;
    const Memory block{std::aligned_alloc(unit, round_up(bytes, unit)), round_up(bytes, unit)};
    if (!block.start) throw std::bad_alloc();
#ifdef __linux__
    // Advice: where it is not taken, nothing else changes.
    if (unit == kHugePage) madvise(block.start, block.size, MADV_HUGEPAGE);
#endif
    return block;
}

}  // namespace

Memory take(size_t bytes) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        size_t best = free_blocks.size();
        for (size_t i = 0; i < free_blocks.size(); ++i) {
            const size_t size = free_blocks[i].size;
            // A block that is far too large is left to those that need it.
            const bool fits = bytes <= size && size <= bytes + bytes / 4 + kPage;
            if (fits && (best == free_blocks.size() || size < free_blocks[best].size)) best = i;
        }
        if (best < free_blocks.size()) {
            const Memory block = free_blocks[best];
            free_blocks[best] = free_blocks.back();
            free_blocks.pop_back();
            return block;
        }
    }
    return allocate(bytes ? bytes : 1);
}

void give(Memory memory) {
    std::lock_guard<std::mutex> lock(mutex);
    free_blocks.push_back(memory);
}

void free_cached() {
    std::lock_guard<std::mutex> lock(mutex);
    for (const Memory& block : free_blocks) std::free(block.start);
    free_blocks.clear();
}

size_t cached() {
    std::lock_guard<std::mutex> lock(mutex);
    size_t total = 0;
    for (const Memory& block : free_blocks) total += block.size;
    return total;
}

Scratch::Scratch(size_t bytes) : memory_(take(bytes)) {}

Scratch::~Scratch() { give(memory_); }

float* Scratch::floats() const { return static_cast<float*>(memory_.start); }

}  // namespace faigfast
