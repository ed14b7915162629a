// A path convolution, and its input gradient, which is the convolution of the gradient with the
// weights turned round. A block of tiles is transformed, multiplied and transformed back before the
// next one is begun, so that it stays in the second cache.

#include "gate.h"
#include "memory.h"
#include "pass.h"
#include "weights.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Tiles of a block, such that they and their products stay in the second cache.
int64_t block_tiles(int64_t row) {
    const int64_t tiles = 24 * 64 / row / kRows * kRows;
    return tiles < 24 ? 24 : tiles > 96 ? 96 : tiles;
}

struct Block {
    int64_t rows, row, slot;

    Block(const Channels& in, int64_t vectors)
        : rows(0), row(most(in.padded, vectors * kLanes)), slot(0) {
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
    const int64_t row = in.row(), pixel = in.pixel(), padded = in.padded;
    const float* slopes = pass.slopes + point * padded;
    const float scale = pass.path.scale;
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t y = place.y - 1, x = place.x - 1;
        const int64_t at =
            point * pass.values_point + place.sample * pass.values_sample + y * row + x * pixel;
        float* to = buffer + i * block.row;
        const int64_t top = most(0, -y), bottom = least(kPatch, tiles.height - y);
        const int64_t left = most(0, -x), right = least(kPatch, tiles.width - x);
        const bool inside = top == 0 && left == 0 && bottom == kPatch && right == kPatch;
        if ((kGate == Gate::open || kLanes == 16) && inside && in.group % kLanes == 0) {
            in.each_vector([&](int64_t v, int64_t offset, int) {
                const float *from = pass.values + at + offset, *gate = pass.saved + at + offset;
                const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                transform_input(
                    [&](int r, int c) {
                        const int64_t here = r * row + c * pixel;
                        const Vec saved = kGate >= Gate::relu ? load(gate + here) : Vec{};
                        return through<kGate>(load(from + here), saved, scale, slope);
                    },
                    to + v * kLanes, block.slot);
            });
            continue;
        }
        // Pixel by pixel: rows of two images, read together, would lie in the same sets of the
        // first cache and drive each other out.
        if (!inside)
            for (int64_t j = 0; j < kFrequencies * padded; j += kLanes) store(patch + j, Vec{});
        for (int64_t r = top; r < bottom; ++r)
            for (int64_t c = left; c < right; ++c) {
                float* here = patch + (r * kPatch + c) * padded;
                const int64_t there = at + r * row + c * pixel;
                in.each_vector([&](int64_t v, int64_t offset, int lanes) {
                    const float* from = pass.values + there + offset;
                    const Vec saved =
                        kGate >= Gate::relu ? read(pass.saved + there + offset, lanes) : Vec{};
                    const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                    store(here + v * kLanes,
                          through<kGate>(read(from, lanes), saved, scale, slope));
                });
            }
        for (int64_t v = 0; v < in.vectors; ++v) {
            const float* from = patch + v * kLanes;
            transform_input([&](int r, int c) { return load(from + (r * kPatch + c) * padded); },
                            to + v * kLanes, block.slot);
        }
    }
}

// All frequencies of a block.
void multiply(const WeightLayout& layout, const Block& block, const float* u, int64_t count,
              float* buffer) {
    for (int64_t f = 0; f < kFrequencies; ++f)
        for (int64_t panel = 0; panel < layout.panels; ++panel)
            multiply_panel<false>(
                {buffer + (f + 1) * block.slot, block.row, 1,
                 u + f * layout.slot + panel * layout.panel, kPanel,
                 buffer + f * block.slot + panel * kPanel, block.row, layout.depth},
                count, least(kColumns, layout.vectors - panel * kColumns));
}

// Transforms tiles back, and applies what follows the convolution.
template <Activation kActivation>
void scatter(const Pass& pass, const Block& block, Range vs, int64_t point, int64_t first,
             int64_t count, const float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& out = pass.out;
    const int64_t row = out.row(), pixel = out.pixel();
    const Vec scale = broadcast(pass.scale());
    float* result = pass.result + point * pass.path.samples * pass.out_sample;
    const float* bias = pass.bias ? pass.bias + point * out.padded : nullptr;
    const float* slopes = pass.slopes + point * out.padded;
    const float* residual = pass.residual ? pass.residual + point * pass.residual_point : nullptr;
    const bool apart = residual && pass.residual_pixel != pixel;  // then never shuffled
    const int64_t rest_pixel = apart ? pass.residual_pixel : pixel;
    const int64_t rest_row = apart ? tiles.width * rest_pixel : row;
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t high = least(kTile, tiles.height - place.y);
        const int64_t wide = least(kTile, tiles.width - place.x);
        const int64_t at = place.sample * pass.out_sample + place.y * row + place.x * pixel;
        const int64_t rest_at =
            place.sample * tiles.height * rest_row + place.y * rest_row + place.x * rest_pixel;
        out.each_vector(vs, [&](int64_t v, int64_t offset, int lanes) {
            float* to = result + at + offset;
            const float* from = buffer + i * block.row + (v - vs.begin) * kLanes;
            const float* rest = residual ? residual + rest_at + offset : nullptr;
            const Vec shift = bias ? load(bias + v * kLanes) : Vec{};
            const Vec slope = kActivation == Activation::leaky ? load(slopes + v * kLanes) : Vec{};
            const auto end = [&](Vec value) {
                value += shift;
                // So written, what is not a number stays so.
                if (kActivation == Activation::relu) value = value < 0 ? Vec{} : value;
                if (kActivation == Activation::leaky) value = value > 0 ? value : value * slope;
                return value * scale;
            };
            const bool whole = high == kTile && wide == kTile && lanes == kLanes;
            if (whole && !rest) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    store(to + r * row + c * pixel, end(value));
                });
            } else if (whole) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    const int64_t here = r * row + c * pixel;
                    store(to + here, end(value) + load(rest + r * rest_row + c * rest_pixel));
                });
            } else {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    if (r >= high || c >= wide) return;
                    const int64_t here = r * row + c * pixel;
                    value = end(value);
                    if (rest) value += load(rest + r * rest_row + c * rest_pixel, lanes);
                    store(to + here, value, lanes);
                });
            }
        });
    }
}

void scatter(const Pass& pass, const Block& block, Range vs, int64_t point, int64_t first,
             int64_t count, const float* buffer) {
    switch (pass.activation()) {
        case Activation::none:
            return scatter<Activation::none>(pass, block, vs, point, first, count, buffer);
        case Activation::relu:
            return scatter<Activation::relu>(pass, block, vs, point, first, count, buffer);
        case Activation::leaky:
            return scatter<Activation::leaky>(pass, block, vs, point, first, count, buffer);
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

// A thread's way through its tiles, for the vectors `vs` of columns.
struct Worker {
    const Pass& pass;
    const Gate gate;
    const WeightLayout& layout;
    const Block& block;
    const Range vs;
    float *patch, *buffer;

    // U at a point, for some k.
    void transform(int64_t point, Range ks, float* u) const {
        const PathConvolution& path = pass.path;
        transform_weights(path.w0, path.dw, path.alpha[point], pass.out.padded, layout, vs.begin,
                          ks, u);
    }

    // Some tiles, counted from point 0; weights_of(point) gives U.
    template <typename F>
    void run(Range tiles, F weights_of) const {
        const int64_t point_tiles = pass.path.samples * pass.tiles.count;
        while (tiles.begin < tiles.end) {
            const int64_t point = tiles.begin / point_tiles, tile = tiles.begin % point_tiles;
            const int64_t rest = least(tiles.end - tiles.begin, point_tiles - tile);
            const int64_t count = least(block.rows, rest);
            const float* u = weights_of(point);
            gather(gate, pass, block, point, tile, count, patch, buffer + block.slot);
            multiply(layout, block, u, count, buffer);
            scatter(pass, block, vs, point, tile, count, buffer);
            tiles.begin += count;
        }
    }
};

constexpr int64_t kPartBytes = 800 << 10;           // of weights that stay in the second cache
constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of points whose weights are shared at once

void run(const Pass& pass, Gate gate, Range vs) {
    const PathConvolution& path = pass.path;
    const WeightLayout layout(pass.in, vs.end - vs.begin);
    const Block block(pass.in, vs.end - vs.begin);
    // A thread with points of its own transforms their weights itself, into one place that stays
    // in its second cache; where a point is shared, so are its weights.
    const bool own = path.points >= path.threads;
    const int64_t together =
        own ? path.threads : least(path.points, most(1, kWeightBytes / 4 / layout.size));
    const int64_t patch = round_up(kFrequencies * pass.in.padded, 16);
    const int64_t size = round_up(patch + block.size(), 16) + 16;
    const Scratch scratch(4 * (together * layout.size + path.threads * size));
    float *weights = scratch.floats(), *buffers = weights + together * layout.size;
    const int64_t point_tiles = path.samples * pass.tiles.count;

#pragma omp parallel num_threads(path.threads)
    {
        const int id = thread_id(), threads = thread_count();
        float* room = buffers + id * size;
        const Worker worker{pass, gate, layout, block, vs, room, room + patch};
        if (own) {
            float* u = weights + id * layout.size;
            int64_t ready = -1;
            worker.run(share(path.points * point_tiles, id, threads), [&](int64_t point) {
                if (point != ready) worker.transform(ready = point, {0, layout.depth}, u);
                return u;
            });
        } else {
            const Range ks = share(layout.depth, id, threads);
            for (int64_t begin = 0; begin < path.points; begin += together) {
                const int64_t points = least(together, path.points - begin);
                for (int64_t p = 0; p < points; ++p)
                    worker.transform(begin + p, ks, weights + p * layout.size);
#pragma omp barrier
                const Range mine = share(points * point_tiles, id, threads);
                const int64_t before = begin * point_tiles;
                worker.run({before + mine.begin, before + mine.end},
                           [&](int64_t point) { return weights + (point - begin) * layout.size; });
#pragma omp barrier
            }
        }
    }
}

// Columns one part after the other where all their weights would not stay in the second cache: to
// transform the input again costs less.
void run(const Pass& pass, Gate gate) {
    const int64_t most_vectors = kPartBytes / 4 / (kFrequencies * pass.in.columns() * kLanes);
    const int64_t part = most(kColumns, most_vectors / kColumns * kColumns);
    for (int64_t v = 0; v < pass.out.vectors; v += part)
        run(pass, gate, {v, least(pass.out.vectors, v + part)});
}

}  // namespace

int64_t packed_size(const Packing& packing) {
    return 9 * packed_in(packing).columns() * packed_out(packing).padded;
}

void pack(const Packing& packing, const float* w, float* packed, int threads) {
    const Channels in = packed_in(packing), out = packed_out(packing);
#pragma omp parallel num_threads(threads)
    {
        const Range ks = share(in.columns(), thread_id(), thread_count());
        (packing.turned ? pack_turned_taps : pack_taps)(w, in, out, ks, packed);
    }
}

void convolve(const PathConvolution& path, const ForwardArrays& arrays) {
    const Channels in(path.inputs, path.width, 1, arrays.x_pixel);
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
         pixels * in.pitch, arrays.residual, arrays.residual_point, out.pixel(),
         pixels * path.outputs, arrays.y, slopes, path.b0 ? bias : nullptr, false},
        Gate::open);
}

void convolve_input_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Channels out(path.inputs, path.width, 1);
    const int64_t pixels = path.height * path.width;
    const Scratch scratch(4 * path.points * in.padded);
    fill_slopes(path, in, scratch.floats());
    const int64_t sample = pixels * path.outputs;
    const int64_t more_pixel = arrays.more_pixel ? arrays.more_pixel : path.inputs;
    run({path, in, out, Tiles(path.height, path.width, kTile), arrays.gy, arrays.saved,
         path.samples * sample, sample, arrays.more, path.samples * pixels * more_pixel, more_pixel,
         pixels * path.inputs, arrays.gx, scratch.floats(), nullptr, true},
        gate_of(path));
}

}  // namespace faigfast::FAIGFAST_ISA
