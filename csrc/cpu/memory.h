#pragma once

#include <stddef.h>

namespace faigfast {

// Uninitialised memory, aligned to pages, cut from regions that the process keeps: pages new to a
// process cost more than the kernels that write them. Any thread may allocate and release.
struct Memory {
    void* start;
    size_t size;
};

// At least `bytes` bytes. Throws std::bad_alloc.
Memory allocate(size_t bytes);

// Returns memory to the cache, for later calls.
void release(Memory memory);

// Returns regions of which no part is in use to the system.
void free_cached();

// Bytes of the cache that are not in use.
size_t cached();

// Bytes of a core's L2 cache; 1 MiB where the system does not say.
size_t l2_size();

// Bytes of the L3 cache; 0 where the system does not say.
size_t l3_size();

// Memory for the duration of one call.
class Scratch {
public:
    explicit Scratch(size_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // Not inline: its callers are compiled for other instruction sets.
    float* floats() const;

private:
    Memory memory_;
};

}  // namespace faigfast
