#pragma once

#include <stddef.h>

namespace faigfast {

enum class Isa;
struct PathConvolution;

// How images are read and written that the second caches do not hold.
struct Streaming {
    bool ahead;  // lines that the next block reads are asked for while this one is multiplied
    bool past;   // results are stored past the caches
};

// How those of a layer are; neither way where they are small. Not inline: where this is used is
// compiled for other processors.
Streaming streaming(const PathConvolution& path);

// How large ones are, and whether that was measured or chosen already.
Streaming streaming();
bool is_settled();

// Has them so from now on. Large are those of so many bytes a thread; 0: of its second cache's.
void set_streaming(Streaming how, size_t from);

// Before a layer: if it is the first large one, has what is the fastest here, which depends on the
// processor and on who shares its caches. Measured once a process, which takes about as long as
// fifty layers.
void settle_streaming(Isa isa, const PathConvolution& path);

}  // namespace faigfast
