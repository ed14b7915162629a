#pragma once

#include <stddef.h>

namespace faigfast {

struct PathConvolution;

// Whether a layer's images come from memory and go there: lines that the next block reads are
// prefetched while one is multiplied, and results are stored past the caches (AVX-512). True where
// the second caches do not hold the images and the third one does not hold those of all layers. Not
// inline: the code that calls it is compiled for other processors.
bool streams(const PathConvolution& path);

// Whether large layers stream on this processor.
bool streaming();

// Choose it, and from how many bytes of images a thread a layer is large; 0: the second cache's
// size.
void set_streaming(bool large_layers, size_t from);

}  // namespace faigfast
