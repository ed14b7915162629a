#include "memory.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#ifdef __linux__
#include <unistd.h>
#endif

namespace faigfast {
namespace {

constexpr size_t kPage = 4096;  // alignment of blocks
constexpr size_t kRegion = size_t{1} << 27;

struct Region {
    size_t size;
    size_t used;  // bytes handed out from its start; the rest has no pages yet
};

std::mutex mutex;
std::map<char*, Region> regions;      // allocated from the system
std::map<char*, size_t> free_blocks;  // within used bytes; neighbours in a region are merged

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

char* new_region(size_t bytes) {
    void* start = std::aligned_alloc(kPage, bytes);
    if (!start) throw std::bad_alloc();
    return static_cast<char*>(start);
}

// Takes a free block; what is left of it stays free.
Memory cut(std::map<char*, size_t>::iterator block, size_t size) {
    const auto [start, whole] = *block;
    free_blocks.erase(block);
    if (whole > size) free_blocks.emplace(start + size, whole - size);
    return {start, size};
}

// Extends the free block at the end of a region's used bytes by new pages; null if it cannot.
char* grow(char* start, Region& region, size_t size) {
    char* end = start + region.used;
    const auto next = free_blocks.lower_bound(end);
    const auto last = next == free_blocks.begin() ? free_blocks.end() : std::prev(next);
    const bool touches = last != free_blocks.end() && last->first + last->second == end;
    const size_t reused = touches && last->first >= start ? last->second : 0;
    if (region.size - region.used < size - reused) return nullptr;
    if (reused) free_blocks.erase(last);
    region.used += size - reused;
    return end - reused;
}

// Merges a block with the next one if both are free and in one region.
void merge_with_next(std::map<char*, size_t>::iterator block) {
    const auto next = std::next(block);
    const bool touch = next != free_blocks.end() && block->first + block->second == next->first;
    if (!touch || regions.count(next->first)) return;
    block->second += next->second;
    free_blocks.erase(next);
}

}  // namespace

Memory allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    const size_t size = round_up(bytes ? bytes : 1, kPage);
    auto best = free_blocks.end();  // the smallest that is large enough
    for (auto block = free_blocks.begin(); block != free_blocks.end(); ++block) {
        const bool fits = block->second >= size;
        if (fits && (best == free_blocks.end() || block->second < best->second)) best = block;
    }
    if (best != free_blocks.end()) return cut(best, size);
    for (auto& [start, region] : regions) {
        if (char* block = grow(start, region, size)) return {block, size};
    }
    const size_t whole = size < kRegion ? kRegion : size;
    char* start = new_region(whole);
    regions.emplace(start, Region{whole, size});
    return {start, size};
}

void release(Memory memory) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto block = free_blocks.emplace(static_cast<char*>(memory.start), memory.size).first;
    merge_with_next(block);
    if (block != free_blocks.begin()) merge_with_next(std::prev(block));
}

void free_cached() {
    std::lock_guard<std::mutex> lock(mutex);
    for (auto region = regions.begin(); region != regions.end();) {
        const auto block = free_blocks.find(region->first);
        const bool unused = block != free_blocks.end() && block->second == region->second.used;
        if (unused) {
            std::free(region->first);
            free_blocks.erase(block);
            region = regions.erase(region);
        } else {
            ++region;
        }
    }
}

size_t cached() {
    std::lock_guard<std::mutex> lock(mutex);
    size_t total = 0;
    for (const auto& block : free_blocks) total += block.second;
    return total;
}

size_t l2_size() {
    constexpr size_t kUsual = size_t{1} << 20;
#ifdef _SC_LEVEL2_CACHE_SIZE
    static const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return size > 0 ? static_cast<size_t>(size) : kUsual;
#else
    return kUsual;
#endif
}

size_t l3_size() {
    // Not from sysconf, which adds up all chips of a socket.
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
    size_t kibibytes = 0;
    file >> kibibytes;  // 0 where there is no such file
    return kibibytes << 10;
}

Scratch::Scratch(size_t bytes) : memory_(allocate(bytes)) {}

Scratch::~Scratch() { release(memory_); }

float* Scratch::floats() const { return static_cast<float*>(memory_.start); }

}  // namespace faigfast
