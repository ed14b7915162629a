#pragma once

#include <stddef.h>

#include <chrono>

namespace faigfast {

enum class Isa;
struct PathConvolution;

// How images that the second caches do not hold are read and written.
struct Streaming {
    bool ahead;  // prefetch the next block's lines while this one is multiplied
    bool past;   // store results past the caches
};

// The way of a layer; neither where its images are small. Not inline: the code that calls it is
// compiled for other processors.
Streaming streaming(const PathConvolution& path);

// The way of large layers, and whether it was measured or chosen already.
Streaming streaming();
bool is_settled();

// Choose the way. Layers with images of so many bytes a thread are large; 0: the second cache's
// size.
void set_streaming(Streaming how, size_t from);

// Times one large layer while the way is not settled. Layers take turns with the ways, several in a
// row with one, since a layer reads what the one before stored; a way wins by the times a pixel of
// layers of equal channels. Which one is fastest depends on the processor and on who shares its
// caches.
class LayerTiming {
public:
    LayerTiming(Isa isa, const PathConvolution& path, bool backward);
    ~LayerTiming();
    LayerTiming(const LayerTiming&) = delete;
    LayerTiming& operator=(const LayerTiming&) = delete;

private:
    const PathConvolution& path_;
    const bool backward_;
    bool counts_ = false;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace faigfast
