#include "memory.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace faigfast {
namespace {

constexpr size_t kLine = 4096;  // what blocks are aligned to
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kRegion = size_t{16} * kHugePage;

std::mutex mutex;
std::vector<Memory> regions;      // from the system
std::vector<Memory> free_blocks;  // cut from them
size_t room = 0;                  // at the end of the last region
size_t held = 0;                  // blocks that were taken and not given

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

void add_region(size_t bytes) {
    const size_t size = round_up(bytes < kRegion ? kRegion : bytes, kHugePage);
    void* start = new_region(size);
    if (room) {
        const Memory& last = regions.back();
        free_blocks.push_back({static_cast<char*>(last.start) + last.size - room, room});
    }
    regions.push_back({start, size});
    room = size;
}

}  // namespace

void* new_region(size_t bytes) {
    const size_t size = round_up(bytes, kHugePage);
    void* start = std::aligned_alloc(kHugePage, size);
    if (!start) throw std::bad_alloc();
#ifdef __linux__
    // Advice: where it is not taken, nothing else changes.
    madvise(start, size, MADV_HUGEPAGE);
#endif
    return start;
}

Memory take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    const size_t size = round_up(bytes ? bytes : 1, kLine);
    size_t best = free_blocks.size();
    for (size_t i = 0; i < free_blocks.size(); ++i) {
        const size_t found = free_blocks[i].size;
        // A block that is far too large is left to those that need it.
        const bool fits = size <= found && found <= size + size / 4;
        if (fits && (best == free_blocks.size() || found < free_blocks[best].size)) best = i;
    }
    if (best < free_blocks.size()) {
        const Memory block = free_blocks[best];
        free_blocks[best] = free_blocks.back();
        free_blocks.pop_back();
        ++held;
        return block;
    }
    if (room < size) add_region(size);
    const Memory& last = regions.back();
    const Memory block{static_cast<char*>(last.start) + last.size - room, size};
    room -= size;
    ++held;
    return block;
}

void give(Memory memory) {
    std::lock_guard<std::mutex> lock(mutex);
    free_blocks.push_back(memory);
    --held;
}

void free_cached() {
    std::lock_guard<std::mutex> lock(mutex);
    if (held) return;
    for (const Memory& region : regions) std::free(region.start);
    regions.clear();
    free_blocks.clear();
    room = 0;
}

size_t cached() {
    std::lock_guard<std::mutex> lock(mutex);
    size_t total = room;
    for (const Memory& block : free_blocks) total += block.size;
    return total;
}

size_t second_cache() {
    constexpr size_t kUsual = size_t{1} << 20;
#ifdef _SC_LEVEL2_CACHE_SIZE
    static const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return size > 0 ? static_cast<size_t>(size) : kUsual;
#else
    return kUsual;
#endif
}

Scratch::Scratch(size_t bytes) : memory_(take(bytes)) {}

Scratch::~Scratch() { give(memory_); }

float* Scratch::floats() const { return static_cast<float*>(memory_.start); }

}  // namespace faigfast
