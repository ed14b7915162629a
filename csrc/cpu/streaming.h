#pragma once

#include <stddef.h>

namespace faigfast {

struct PathConvolution;

// Whether a layer's images stream from memory: lines of the next block are prefetched during the
// products of this one, and results are stored non-temporally (AVX-512). True where the L2 caches
// do not hold the layer's images and the L3 cache does not hold the images of all layers. Not
// inline: its callers are compiled for other instruction sets.
bool streams(const PathConvolution& path);

// Whether large layers stream on this processor.
bool streaming();

// Sets whether large layers stream, and from how many bytes of images a thread a layer is large; 0
// means the size of the L2 cache.
void set_streaming(bool large_layers, size_t from);

}  // namespace faigfast
