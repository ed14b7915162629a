#include "scratch.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace faigfast {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kKept = 4;  // free blocks; more come only from more calls at the same time

struct Block {
    void* start;
    size_t size;
};

std::mutex mutex;
std::vector<Block> free_blocks;

void* allocate(size_t size) {
    void* start = std::aligned_alloc(kHugePage, size);
    if (!start) throw std::bad_alloc();
#ifdef __linux__
    madvise(start, size, MADV_HUGEPAGE);  // advice: where it is not taken, nothing else changes
#endif
    return start;
}

}  // namespace

Scratch::Scratch(size_t bytes)
    : block_(nullptr), size_((bytes + kHugePage) / kHugePage * kHugePage) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        size_t best = free_blocks.size();
        for (size_t i = 0; i < free_blocks.size(); ++i)
            if (free_blocks[i].size >= size_ &&
                (best == free_blocks.size() || free_blocks[i].size < free_blocks[best].size))
                best = i;
        if (best < free_blocks.size()) {
            block_ = free_blocks[best].start;
            size_ = free_blocks[best].size;
            free_blocks.erase(free_blocks.begin() + best);
        } else if (!free_blocks.empty()) {
            // What was too small once is too small again: a larger block takes its place.
            std::free(free_blocks.back().start);
            free_blocks.pop_back();
        }
    }
    if (!block_) block_ = allocate(size_);
}

Scratch::~Scratch() {
    std::lock_guard<std::mutex> lock(mutex);
    if (free_blocks.size() < kKept)
        free_blocks.push_back({block_, size_});
    else
        std::free(block_);
}

float* Scratch::floats() const { return static_cast<float*>(block_); }

void free_scratch() {
    std::lock_guard<std::mutex> lock(mutex);
    for (Block& block : free_blocks) std::free(block.start);
    free_blocks.clear();
}

size_t cached_scratch() {
    std::lock_guard<std::mutex> lock(mutex);
    size_t total = 0;
    for (const Block& block : free_blocks) total += block.size;
    return total;
}

}  // namespace faigfast
