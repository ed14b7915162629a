#pragma once

#include <cstdint>

// The layout of convolution64.cu: tiles, halo, 128-byte swizzle, the descriptors and accumulators
// of wgmma, the order of the work. Plain functions of integers, so that a test can run them on the
// CPU and carry out a whole convolution with them.

#ifdef __CUDACC__
#define FAIGFAST_BOTH __host__ __device__
#else
#define FAIGFAST_BOTH
#endif

namespace faigfast::cuda::layout64 {

constexpr int kChannels = 64;
constexpr int kTaps = 9;
constexpr int kTile = 16;         // rows and columns of a tile
constexpr int kHalo = kTile + 2;  // with one pixel around the tile
constexpr int kStrip = 8;         // neighbouring pixels in one group of 8 rows of wgmma's B
constexpr int kStrips = kTile / kStrip;
constexpr int kColumns = kTile * kStrip;  // pixels of one wgmma, N
constexpr int kDepth = 16;                // channels of one wgmma, K
constexpr int kSteps = kChannels / kDepth;
constexpr int kAccumulators = kColumns / 2;  // floats of a thread for one strip: 64·N / 128

// One pixel's channels, or one output's channels at one tap, are a row of 128 bytes: the span of
// the swizzle.
constexpr int kRow = kChannels * 2;
constexpr int kPattern = 1024;  // bytes after which the swizzle repeats: rows of 8 pixels
constexpr int kTapBytes = kChannels * kRow;
constexpr int kWeightBytes = kTaps * kTapBytes;
constexpr int kHaloBytes = kHalo * kHalo * kRow;
constexpr int kTileBytes = kTile * kTile * kRow;
constexpr int kStageBytes = (kHaloBytes + kPattern - 1) / kPattern * kPattern;
constexpr int kStages = 3;
constexpr int kConsumers = 2;  // warpgroups that multiply; each takes every second tile
constexpr int kGroup = 128;    // threads of a warpgroup
constexpr int kThreads = (1 + kConsumers) * kGroup;

// Shared memory: weights, stages, barriers; its start is rounded up to a multiple of kPattern.
constexpr int kStagesAt = kWeightBytes;
constexpr int kBarriersAt = kStagesAt + kStages * kStageBytes;
constexpr int kBarriers = 2 * kStages + 2 + 2 * kConsumers;
constexpr int kSharedBytes = kBarriersAt + kBarriers * 8 + kPattern;
static_assert(kSharedBytes <= 227 * 1024, "a block of sm_90 has 227 KB");
static_assert(kTileBytes <= kStageBytes, "results take the place of the pixels they came from");
static_assert(kWeightBytes % kPattern == 0, "stages begin where the swizzle's pattern does");

// The copy engine and wgmma exchange bits 4–6 of a shared address with bits 7–9.
FAIGFAST_BOTH constexpr uint32_t swizzled(uint32_t address) {
    return address ^ ((address >> 7 & 7) << 4);
}

// Descriptor of a K-major matrix of 16-bit values for wgmma, swizzled by 128 bytes: its start, and
// the bytes from one group of 8 rows to the next. The pattern begins at multiples of 1024, so that
// the base offset is 0 even for a matrix that starts inside a pattern. Addresses below 2^18, in
// units of 16, do not fill their 14 bits, so that adding to a descriptor moves the matrix.
FAIGFAST_BOTH constexpr uint64_t descriptor(uint32_t start, uint32_t eight_rows) {
    constexpr uint64_t kSwizzle128 = 1, kUnusedLeading = 1;
    return (static_cast<uint64_t>(start & 0x3ffff) >> 4) | kUnusedLeading << 16 |
           static_cast<uint64_t>(eight_rows >> 4) << 32 | kSwizzle128 << 62;
}

// A: outputs by channels of a tap, at `step` of kSteps.
FAIGFAST_BOTH constexpr uint64_t weights_descriptor(uint32_t weights, int tap, int step) {
    return descriptor(weights, 8 * kRow) + (tap * kTapBytes + step * kDepth * 2) / 16;
}

// B: the pixels that a tap reads for a strip. Eight neighbours are a group of rows; the next group
// is one line of the halo further, so that the nine taps are nine start addresses.
FAIGFAST_BOTH constexpr uint64_t pixels_descriptor(uint32_t stage, int strip, int tap, int step) {
    const int pixel = tap / 3 * kHalo + tap % 3 + strip * kStrip;
    return descriptor(stage, kHalo * kRow) + (pixel * kRow + step * kDepth * 2) / 16;
}

// The output, and the column of its strip, of accumulator i of a thread of a warpgroup.
FAIGFAST_BOTH constexpr int output_of(int thread, int i) {
    return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
}
FAIGFAST_BOTH constexpr int column_of(int thread, int i) {
    return i / 4 * 8 + thread % 4 * 2 + i % 2;
}

// Results and residual are in a stage as [kTile, kTile, kChannels], swizzled. stmatrix and ldmatrix
// move four 8×8 blocks at once: outputs 0–7 and 8–15 of a warp's 16, for `line` of the tile and the
// next. Returns the address of the row of 16 bytes that a lane names.
FAIGFAST_BOTH constexpr uint32_t block_row(uint32_t stage, int strip, int line, int warp,
                                           int lane) {
    const int matrix = lane / 8, pixel = (line + matrix / 2) * kTile + strip * kStrip + lane % 8;
    const int chunk = warp * 2 + matrix % 2;
    return swizzled(stage + pixel * kRow + chunk * 16);
}

// Work items: tiles of all samples at all points. A block takes neighbours, so that it seldom
// changes the point whose weights it keeps. An item is 32 KB of results, so 31 bits count them all.
struct Work {
    int points, samples;
    int height, width;  // of an image

    FAIGFAST_BOTH constexpr int down() const { return (height + kTile - 1) / kTile; }
    FAIGFAST_BOTH constexpr int across() const { return (width + kTile - 1) / kTile; }
    FAIGFAST_BOTH constexpr int tiles() const { return samples * down() * across(); }
    FAIGFAST_BOTH constexpr int items() const { return points * tiles(); }
};

struct Item {
    int point, sample;
    int y, x;  // of the tile's first pixel
};

FAIGFAST_BOTH constexpr Item item_of(const Work& work, int item) {
    const int point = item / work.tiles(), rest = item % work.tiles();
    const int row = rest / work.across();
    return {point, row / work.down(), row % work.down() * kTile, rest % work.across() * kTile};
}

// First item of a block; its last one precedes the first item of the next block.
FAIGFAST_BOTH constexpr int first_item(const Work& work, int block, int blocks) {
    return static_cast<int>(static_cast<int64_t>(work.items()) * block / blocks);
}

// One past the last of a block's items at the same point as `item`.
FAIGFAST_BOTH constexpr int segment_end(const Work& work, int item, int last) {
    const int end = (item / work.tiles() + 1) * work.tiles();
    return end < last ? end : last;
}

// The n-th item of a block goes through stage n % kStages, for the (n / kStages)-th time, and to
// the consumer n % kConsumers. A barrier's phase alternates from 0.
FAIGFAST_BOTH constexpr int stage_of(int n) { return n % kStages; }
FAIGFAST_BOTH constexpr uint32_t phase_of(int n) { return n / kStages % 2; }
FAIGFAST_BOTH constexpr int consumer_of(int n) { return n % kConsumers; }

// The consumers multiply in turn. The one of item n waits for this phase of its own barrier, which
// the consumer of item n - 1 ends; the first item passes, as the phase before the first is over.
static_assert(kConsumers == 2, "a turn passes from each consumer to the other");
FAIGFAST_BOTH constexpr uint32_t turn_of(int n) { return (n / 2 + 1 - n % 2) % 2; }

}  // namespace faigfast::cuda::layout64
