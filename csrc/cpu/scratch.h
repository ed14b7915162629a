#pragma once

#include <stddef.h>

namespace faigfast {

// Memory for one call, of unknown content and aligned to 64 bytes. It comes from a cache, since
// pages that are new to a process cost more than what is computed in them; calls at the same time
// get blocks of their own. Throws std::bad_alloc.
class Scratch {
public:
    explicit Scratch(size_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // Not inline: where this is used is compiled for other processors.
    float* floats() const;

private:
    void* block_;
    size_t size_;
};

// Give the cached blocks back to the system.
void free_scratch();

// Bytes in cached blocks that no call uses.
size_t cached_scratch();

}  // namespace faigfast
