// What a change of one input channel changes in a layer: nine multiply-adds an output, so memory is
// the limit; the known result and the residual are shared by all samples and stay in the cache.

#include "one_channel.h"

#include "common/parallel.h"
#include "common/vector.h"
#include "memory.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int kPixels = 4;  // whose sums are in registers together, beside nine taps

template <Activation kActivation>
inline Vec activated(Vec value, Vec slope) {
    // This order of the comparison lets NaN through.
    if (kActivation == Activation::relu) return value < 0 ? Vec{} : value;
    if (kActivation == Activation::leaky) return value > 0 ? value : value * slope;
    return value;
}

// Rows y-1, y and y+1 of a sample's change, with zeros outside.
struct Neighbours {
    int64_t row;  // floats
    float* rows;

    void read(const OneChannel& layer, int64_t sample, int64_t y) const {
        const float* change = layer.change + sample * layer.height * layer.width;
        for (int64_t dy = 0; dy < 3; ++dy) {
            float* to = rows + dy * row;
            const int64_t from = y + dy - 1;
            const bool inside = from >= 0 && from < layer.height;
            to[0] = 0;
            for (int64_t x = 0; x < layer.width; ++x)
                to[x + 1] = inside ? change[from * layer.width + x] : 0;
            to[layer.width + 1] = 0;
        }
    }
};

// Some channels of every pixel of a row, at one place of the shuffle.
template <Activation kActivation, bool kWhole>
struct RowOfChannels {
    const Neighbours& from;
    int64_t pixel;  // floats from one pixel of the result to the next
    int lanes;
    Vec slope, scale;

    static inline Vec read(const float* from, int lanes) {
        return kWhole ? load(from) : load(from, lanes);
    }

    template <int kCount>
    inline void write(const Vec* taps, const float* known, const float* residual, float* y,
                      int64_t x) const {
        Vec sums[kCount];
        for (int p = 0; p < kCount; ++p) sums[p] = read(known + p * pixel, lanes);
        for (int tap = 0; tap < 9; ++tap) {
            const float* row = from.rows + tap / 3 * from.row + x + tap % 3;
            for (int p = 0; p < kCount; ++p) sums[p] += broadcast(row[p]) * taps[tap];
        }
        for (int p = 0; p < kCount; ++p) {
            Vec value = activated<kActivation>(sums[p], slope) * scale;
            if (residual) value += read(residual + p * pixel, lanes);
            if (kWhole)
                store(y + p * pixel, value);
            else
                store(y + p * pixel, value, lanes);
        }
    }

    void run(const float* w, int64_t channels, const float* known, const float* residual, float* y,
             int64_t width) const {
        Vec taps[9];
        for (int tap = 0; tap < 9; ++tap) taps[tap] = read(w + tap * channels, lanes);
        int64_t x = 0;
        const auto at = [&](const float* image) { return image ? image + x * pixel : nullptr; };
        for (; x + kPixels <= width; x += kPixels)
            write<kPixels>(taps, at(known), at(residual), y + x * pixel, x);
        for (; x < width; ++x) write<1>(taps, at(known), at(residual), y + x * pixel, x);
    }
};

template <Activation kActivation>
void run_rows(const OneChannel& layer) {
    const int64_t r = layer.shuffle, channels = layer.channels, pixel = r * channels;
    const int64_t line = layer.width * pixel;  // floats in a row of the result
    const int64_t size = round_up(3 * (layer.width + 2 + kLanes), 16);
    const Scratch scratch(sizeof(float) * size * layer.threads);
    float* rooms = scratch.floats();

#pragma omp parallel num_threads(layer.threads)
    {
        const Neighbours neighbours{layer.width + 2, rooms + thread_id() * size};
        const Vec slope = broadcast(layer.slope), scale = broadcast(layer.scale);
        const Range mine = share(layer.samples * layer.height, thread_id(), thread_count());
        for (int64_t row = mine.begin; row < mine.end; ++row) {
            const int64_t sample = row / layer.height, y = row % layer.height;
            neighbours.read(layer, sample, y);
            for (int64_t phase = 0; phase < r * r; ++phase) {
                const int64_t start = (y * r + phase / r) * line + phase % r * channels;
                const float* w = layer.w + phase * 9 * channels;
                float* to = layer.y + sample * layer.height * r * line;
                for (int64_t c = 0; c < channels; c += kLanes) {
                    const int lanes = (int)least(kLanes, channels - c);
                    const float* known = layer.known + start + c;
                    const float* residual = layer.residual ? layer.residual + start + c : nullptr;
                    if (lanes == kLanes)
                        RowOfChannels<kActivation, true>{neighbours, pixel, lanes, slope, scale}
                            .run(w + c, channels, known, residual, to + start + c, layer.width);
                    else
                        RowOfChannels<kActivation, false>{neighbours, pixel, lanes, slope, scale}
                            .run(w + c, channels, known, residual, to + start + c, layer.width);
                }
            }
        }
    }
}

}  // namespace

void one_channel(const OneChannel& layer) {
    switch (layer.activation) {
        case Activation::none:
        case Activation::factor:  // not going forward
            return run_rows<Activation::none>(layer);
        case Activation::relu:
            return run_rows<Activation::relu>(layer);
        case Activation::leaky:
            return run_rows<Activation::leaky>(layer);
    }
}

}  // namespace faigfast::FAIGFAST_ISA
