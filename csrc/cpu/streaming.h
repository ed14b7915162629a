#pragma once

#include <stddef.h>
#include <stdint.h>

namespace faigfast {

enum class Isa;
struct PathConvolution;

// How images are read and written that the second caches do not hold.
struct Streaming {
    bool ahead;  // lines that the next block reads are asked for while this one is multiplied
    bool past;   // results are stored past the caches
};

// How images of so many bytes are, with so many threads; small ones never are. Not inline: where
// this is used is compiled for other processors.
Streaming streaming(int64_t bytes, int threads);

// How it is from now on, from so many bytes a thread.
void set_streaming(Streaming how, size_t from);

// Before the first large layer: has what is the fastest here, which depends on the processor and on
// who shares its caches. A tenth of a second, once a process.
void settle_streaming(Isa isa, const PathConvolution& path);

}  // namespace faigfast
