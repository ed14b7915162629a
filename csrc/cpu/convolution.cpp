// A path convolution, and its input gradient, which is the convolution of the gradient with the
// weights turned round. A block of tiles is transformed, multiplied and transformed back before the
// next one is begun, so that it stays in the second cache.

#include "gate.h"
#include "memory.h"
#include "prefetch.h"
#include "weights.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// What one convolution reads and writes, whichever direction it goes.
struct Pass {
    const PathConvolution& path;
    Channels in, out;
    Tiles tiles;
    const float *values, *saved;  // saved: null where the gate needs nothing
    int64_t values_point, values_sample;
    const float* residual;
    int64_t residual_point, out_sample;
    float* result;
    // Of the gate where a gradient is read, of the activation where y is written.
    const float* slopes;  // [points, padded]
    const float* bias;    // [points, padded], or null
    bool gradient;
};

// Tiles of a block, such that they and their products stay in the second cache.
int64_t block_tiles(int64_t row) {
    const int64_t tiles = 24 * 64 / row / kRows * kRows;
    return tiles < 24 ? 24 : tiles > 96 ? 96 : tiles;
}

struct Block {
    int64_t rows, row, slot;

    Block(const Channels& in, const Channels& out)
        : rows(0), row(most(in.padded, out.padded)), slot(0) {
        rows = block_tiles(row);
        slot = (rows + 1) * row;  // an odd number of rows, against aliases in the first cache
    }
    // A slot more than there are frequencies: products take the place of what was multiplied
    // one frequency before.
    int64_t size() const { return (kFrequencies + 1) * slot; }
};

// Transforms tiles [first, first + count) of all samples at a point; `patch` [36, padded] is room.
template <Gate kGate>
void gather(const Pass& pass, const Block& block, int64_t point, int64_t first, int64_t count,
            float* patch, float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& in = pass.in;
    const int64_t row = in.row(), pixel = in.pixel();
    const float* slopes = pass.slopes + point * in.padded;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t sample = (first + i) / tiles.count, tile = (first + i) % tiles.count;
        const int64_t y = tile / tiles.across * kTile - 1, x = tile % tiles.across * kTile - 1;
        const int64_t at =
            point * pass.values_point + sample * pass.values_sample + y * row + x * pixel;
        float* to = buffer + i * block.row;
        const bool inside =
            y >= 0 && x >= 0 && y + kPatch <= tiles.height && x + kPatch <= tiles.width;
        if (kGate == Gate::open && inside && in.group % kLanes == 0) {
            in.each_vector([&](int64_t v, int64_t offset, int) {
                const float* from = pass.values + at + offset;
                transform_input([&](int r, int c) { return load(from + r * row + c * pixel); },
                                to + v * kLanes, block.slot);
            });
            continue;
        }
        // Pixel by pixel: rows of two images, read together, would lie in the same sets of the
        // first cache and drive each other out.
        for (int64_t r = 0; r < kPatch; ++r)
            for (int64_t c = 0; c < kPatch; ++c) {
                float* here = patch + (r * kPatch + c) * in.padded;
                if (y + r < 0 || x + c < 0 || y + r >= tiles.height || x + c >= tiles.width) {
                    for (int64_t v = 0; v < in.vectors; ++v) store(here + v * kLanes, Vec{});
                    continue;
                }
                const int64_t there = at + r * row + c * pixel;
                in.each_vector([&](int64_t v, int64_t offset, int lanes) {
                    const float* from = pass.values + there + offset;
                    const Vec saved =
                        kGate >= Gate::relu ? read(pass.saved + there + offset, lanes) : Vec{};
                    const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                    store(here + v * kLanes,
                          through<kGate>(read(from, lanes), saved, pass.path.scale, slope));
                });
            }
        for (int64_t v = 0; v < in.vectors; ++v)
            transform_input(
                [&](int r, int c) {
                    return load(patch + (r * kPatch + c) * in.padded + v * kLanes);
                },
                to + v * kLanes, block.slot);
    }
}

// All frequencies of a block, while `ahead`, some of it null, is brought nearer.
void multiply(const WeightLayout& layout, const Block& block, const float* u, int64_t count,
              const Lines (&ahead)[3], float* buffer) {
    const int64_t parts = kFrequencies * layout.panels;
    for (int64_t f = 0; f < kFrequencies; ++f)
        for (int64_t panel = 0; panel < layout.panels; ++panel) {
            for (const Lines& lines : ahead)
                if (lines.image) prefetch(lines, f * layout.panels + panel, parts);
            multiply_panel<false>(
                {buffer + (f + 1) * block.slot, block.row, 1,
                 u + f * layout.slot + panel * layout.panel, kPanel,
                 buffer + f * block.slot + panel * kPanel, block.row, layout.depth},
                count, least(kColumns, layout.vectors - panel * kColumns));
        }
}

void scatter(const Pass& pass, const Block& block, int64_t point, int64_t first, int64_t count,
             const float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& out = pass.out;
    const int64_t row = out.row(), pixel = out.pixel();
    const Activation activation = pass.gradient ? Activation::none : pass.path.activation;
    const Vec scale = broadcast(pass.gradient ? 1 : pass.path.scale);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t sample = (first + i) / tiles.count, tile = (first + i) % tiles.count;
        const int64_t y = tile / tiles.across * kTile, x = tile % tiles.across * kTile;
        const int64_t high = least(kTile, tiles.height - y), wide = least(kTile, tiles.width - x);
        const int64_t place = sample * pass.out_sample + y * row + x * pixel;
        out.each_vector([&](int64_t v, int64_t offset, int lanes) {
            const int64_t at = place + offset;
            float* to = pass.result + point * pass.path.samples * pass.out_sample + at;
            const float* residual =
                pass.residual ? pass.residual + point * pass.residual_point + at : nullptr;
            const int64_t column = point * out.padded + v * kLanes;
            const Vec bias = pass.bias ? load(pass.bias + column) : Vec{};
            const Vec slope = activation == Activation::leaky ? load(pass.slopes + column) : Vec{};
            const bool whole = high == kTile && wide == kTile && lanes == kLanes;
            transform_output(buffer + i * block.row + v * kLanes, block.slot,
                             [&](int r, int c, Vec value) {
                                 value += bias;
                                 // So written, what is not a number stays so.
                                 if (activation == Activation::relu)
                                     value = value < 0 ? Vec{} : value;
                                 if (activation == Activation::leaky)
                                     value = value > 0 ? value : value * slope;
                                 value *= scale;
                                 const int64_t here = r * row + c * pixel;
                                 if (whole) {
                                     if (residual) value += load(residual + here);
                                     store(to + here, value);
                                 } else if (r < high && c < wide) {
                                     if (residual) value += load(residual + here, lanes);
                                     store(to + here, value, lanes);
                                 }
                             });
        });
    }
}

void gather(Gate gate, const Pass& pass, const Block& block, int64_t point, int64_t first,
            int64_t count, float* patch, float* buffer) {
    switch (gate) {
        case Gate::open:
            return gather<Gate::open>(pass, block, point, first, count, patch, buffer);
        case Gate::scaled:
            return gather<Gate::scaled>(pass, block, point, first, count, patch, buffer);
        case Gate::relu:
            return gather<Gate::relu>(pass, block, point, first, count, patch, buffer);
        case Gate::leaky:
            return gather<Gate::leaky>(pass, block, point, first, count, patch, buffer);
    }
}

constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of points whose weights are ready at once

void run(const Pass& pass, Gate gate) {
    const PathConvolution& path = pass.path;
    const WeightLayout layout(pass.in, pass.out);
    const Block block(pass.in, pass.out);
    const int64_t together = least(path.points, most(1, kWeightBytes / 4 / layout.size));
    const int64_t taps = round_up(9 * layout.depth * pass.out.padded, 16);
    const int64_t patch = round_up(block.size(), 16) + 16;
    const int64_t size = patch + kFrequencies * pass.in.padded;
    const Scratch scratch(4 * (2 * taps + together * layout.size + path.threads * size));
    float *taps0 = scratch.floats(), *taps1 = path.dw ? taps0 + taps : nullptr;
    float *weights = taps0 + 2 * taps, *buffers = weights + together * layout.size;
    const int64_t sample_tiles = pass.tiles.count, point_tiles = path.samples * sample_tiles;

#pragma omp parallel num_threads(path.threads)
    {
        const int id = thread_id(), threads = thread_count();
        const Range ks = share(layout.depth, id, threads);
        float* buffer = buffers + id * size;
        const auto pack = pass.gradient ? pack_turned_taps : pack_taps;
        pack(path.w0, pass.in, pass.out, ks, taps0);
        if (taps1) pack(path.dw, pass.in, pass.out, ks, taps1);
        for (int64_t begin = 0; begin < path.points; begin += together) {
            const int64_t points = least(together, path.points - begin);
            for (int64_t p = 0; p < points; ++p)
                transform_weights(taps0, taps1, path.alpha[begin + p], layout, ks,
                                  weights + p * layout.size);
#pragma omp barrier
            const Range mine = share(points * point_tiles, id, threads);
            for (int64_t done = mine.begin; done < mine.end;) {
                const int64_t p = done / point_tiles, first = done % point_tiles;
                const int64_t count =
                    least(block.rows, least(mine.end - done, point_tiles - first));
                gather(gate, pass, block, begin + p, first, count, buffer + patch,
                       buffer + block.slot);
                const int64_t next = first + count, point = begin + p;
                const int64_t more =
                    least(block.rows, least(mine.end - done - count, point_tiles - next));
                const auto lines = [&](const float* image) {
                    return Lines{image ? image + point * pass.values_point : nullptr,
                                 pass.values_sample,
                                 &pass.in,
                                 &pass.tiles,
                                 next,
                                 more,
                                 1};
                };
                const Lines results{pass.result + point * path.samples * pass.out_sample,
                                    pass.out_sample,
                                    &pass.out,
                                    &pass.tiles,
                                    first,
                                    count,
                                    0};
                multiply(layout, block, weights + p * layout.size, count,
                         {lines(pass.values), lines(pass.saved), results}, buffer);
                scatter(pass, block, begin + p, first, count, buffer);
                done += count;
            }
#pragma omp barrier
        }
    }
}

}  // namespace

void convolve(const PathConvolution& path, const ForwardArrays& arrays) {
    const Channels in(path.inputs, path.width, 1);
    const Channels out(path.outputs, path.width, path.shuffle);
    const int64_t pixels = path.height * path.width, columns = path.points * out.padded;
    const Scratch scratch(8 * columns);
    float *bias = scratch.floats(), *slopes = bias + columns;
    fill_slopes(path, out, slopes);
    for (int64_t point = 0; point < path.points && path.b0; ++point)
        for (int64_t j = 0; j < out.padded; ++j) {
            const int64_t o = out.channel(j);
            bias[point * out.padded + j] =
                o < 0 ? 0 : path.b0[o] + (path.db ? path.alpha[point] * path.db[o] : 0);
        }
    run({path, in, out, Tiles(path.height, path.width, kTile), arrays.x, nullptr, arrays.x_point,
         pixels * path.inputs, arrays.residual, arrays.residual_point, pixels * path.outputs,
         arrays.y, slopes, path.b0 ? bias : nullptr, false},
        Gate::open);
}

void convolve_input_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Channels out(path.inputs, path.width, 1);
    const int64_t pixels = path.height * path.width;
    const Scratch scratch(4 * path.points * in.padded);
    fill_slopes(path, in, scratch.floats());
    const int64_t sample = pixels * path.outputs;
    run({path, in, out, Tiles(path.height, path.width, kTile), arrays.gy, arrays.saved,
         path.samples * sample, sample, nullptr, 0, pixels * path.inputs, arrays.gx,
         scratch.floats(), nullptr, true},
        gate_of(path));
}

}  // namespace faigfast::FAIGFAST_ISA
