#pragma once

#include <stddef.h>

namespace faigfast {

// Memory of unknown content, aligned to pages, cut from regions that are kept: pages that are new
// to a process cost more than what is computed in them. Any thread may take and give.
struct Memory {
    void* start;
    size_t size;
};

// At least so many bytes. Throws std::bad_alloc.
Memory take(size_t bytes);

// What was taken, for others to take.
void give(Memory memory);

// Give the regions of which nobody holds a part back to the system.
void free_cached();

// Bytes that were taken once and that nobody holds.
size_t cached();

// Bytes of a core's second cache; 1 MiB where the system does not tell.
size_t second_cache();

// Bytes of the third cache; 0 where the system does not tell.
size_t third_cache();

// Memory for one call.
class Scratch {
public:
    explicit Scratch(size_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // Not inline: where this is used is compiled for other processors.
    float* floats() const;

private:
    Memory memory_;
};

}  // namespace faigfast
