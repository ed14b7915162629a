// A path convolution, and its input gradient, which is the convolution of the gradient with the
// weights turned round. A block of tiles is transformed, multiplied and transformed back before the
// next one is begun, so that it stays in the second cache. Where the weights of a point would not
// stay there, it is done in parts of what goes in and of what comes out.

#include "gate.h"
#include "memory.h"
#include "parts.h"
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

    explicit Block(const Part& part)
        : rows(0), row(most(part.in.size(), part.out.size()) * kLanes), slot(0) {
        rows = block_tiles(row);
        slot = (rows + 1) * row;  // an odd number of rows, against aliases in the first cache
    }
    // A slot more than there are frequencies: products take the place of what was multiplied
    // one frequency before.
    int64_t size() const { return (kFrequencies + 1) * slot; }
};

// Transforms tiles [first, first + count) of all samples at a point, of the vectors `ks` of what
// goes in; `patch` [36, ks] is room.
template <Gate kGate>
void gather(const Pass& pass, const Block& block, Range ks, int64_t point, int64_t first,
            int64_t count, float* patch, float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& in = pass.in;
    const int64_t row = in.row(), pixel = in.pixel(), padded = ks.size() * kLanes;
    const float* slopes = pass.slopes + point * in.padded;
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
            in.each_vector(ks, [&](int64_t v, int64_t offset, int) {
                const float *from = pass.values + at + offset, *gate = pass.saved + at + offset;
                const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                transform_input(
                    [&](int r, int c) {
                        const int64_t here = r * row + c * pixel;
                        const Vec saved = kGate >= Gate::relu ? load(gate + here) : Vec{};
                        return through<kGate>(load(from + here), saved, scale, slope);
                    },
                    to + (v - ks.begin) * kLanes, block.slot);
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
                in.each_vector(ks, [&](int64_t v, int64_t offset, int lanes) {
                    const float* from = pass.values + there + offset;
                    const Vec saved =
                        kGate >= Gate::relu ? read(pass.saved + there + offset, lanes) : Vec{};
                    const Vec slope = kGate == Gate::leaky ? load(slopes + v * kLanes) : Vec{};
                    store(here + (v - ks.begin) * kLanes,
                          through<kGate>(read(from, lanes), saved, scale, slope));
                });
            }
        for (int64_t j = 0; j < padded; j += kLanes) {
            const float* from = patch + j;
            transform_input([&](int r, int c) { return load(from + (r * kPatch + c) * padded); },
                            to + j, block.slot);
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

// What a part does with its sums: all but the last of what goes in leave them as they are.
struct End {
    Finish finish;
    float scale;
    const float *bias, *residual;
    bool adds;  // to the sums of the parts before

    End(const Pass& pass, Range ks)
        : finish(Finish::none), scale(1), bias(nullptr), residual(nullptr), adds(ks.begin > 0) {
        if (ks.end < pass.in.vectors) return;
        finish = pass.finish();
        scale = pass.scale();
        bias = pass.bias;
        residual = pass.residual;
    }
};

// Transforms tiles back, and applies what follows the convolution.
template <Finish kFinish>
void scatter(const Pass& pass, const Block& block, const End& end, Range vs, int64_t point,
             int64_t first, int64_t count, const float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& out = pass.out;
    const int64_t row = out.row(), pixel = out.pixel();
    const Vec scale = broadcast(end.scale);
    float* result = pass.result + point * pass.path.samples * pass.out_sample;
    const float* bias = end.bias ? end.bias + point * out.padded : nullptr;
    const float* slopes = pass.slopes + point * out.padded;
    const float* residual = end.residual ? end.residual + point * pass.residual_point : nullptr;
    const bool apart = residual && pass.residual_pixel != pixel;  // then never shuffled
    const int64_t rest_pixel = apart ? pass.residual_pixel : pixel;
    const int64_t rest_row = apart ? tiles.width * rest_pixel : row;
    constexpr bool gated = kFinish >= Finish::relu_gate;
    constexpr Gate gate = kFinish == Finish::relu_gate ? Gate::relu : Gate::leaky;
    const int64_t gate_row = tiles.width * pass.gate_pixel;
    const Vec gate_slope = broadcast(pass.gate_slope);
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t high = least(kTile, tiles.height - place.y);
        const int64_t wide = least(kTile, tiles.width - place.x);
        const int64_t at = place.sample * pass.out_sample + place.y * row + place.x * pixel;
        const int64_t rest_at =
            place.sample * tiles.height * rest_row + place.y * rest_row + place.x * rest_pixel;
        const float* gate_at = !gated ? nullptr
                                      : pass.gate + point * pass.gate_point +
                                            (place.sample * tiles.height + place.y) * gate_row +
                                            place.x * pass.gate_pixel;
        out.each_vector(vs, [&](int64_t v, int64_t offset, int lanes) {
            float* to = result + at + offset;
            const float* from = buffer + i * block.row + (v - vs.begin) * kLanes;
            const float* rest = residual ? residual + rest_at + offset : nullptr;
            const Vec shift = bias ? load(bias + v * kLanes) : Vec{};
            const Vec slope = kFinish == Finish::leaky ? load(slopes + v * kLanes) : Vec{};
            const auto finish = [&](Vec value) {
                value += shift;
                // So written, what is not a number stays so.
                if (kFinish == Finish::relu) value = value < 0 ? Vec{} : value;
                if (kFinish == Finish::leaky) value = value > 0 ? value : value * slope;
                return value * scale;
            };
            const auto behind = [&](int r, int c, Vec value) {
                if (!gated) return value;
                const float* saved = gate_at + r * gate_row + c * pass.gate_pixel + offset;
                return through<gate>(value, read(saved, lanes), 1, gate_slope);
            };
            const bool whole = high == kTile && wide == kTile && lanes == kLanes;
            if (whole && !rest && !end.adds) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    store(to + r * row + c * pixel, behind(r, c, finish(value)));
                });
            } else if (whole) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    const int64_t here = r * row + c * pixel;
                    if (end.adds) value += load(to + here);
                    value = finish(value);
                    if (rest) value += load(rest + r * rest_row + c * rest_pixel);
                    store(to + here, behind(r, c, value));
                });
            } else {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    if (r >= high || c >= wide) return;
                    const int64_t here = r * row + c * pixel;
                    if (end.adds) value += load(to + here, lanes);
                    value = finish(value);
                    if (rest) value += load(rest + r * rest_row + c * rest_pixel, lanes);
                    store(to + here, behind(r, c, value), lanes);
                });
            }
        });
    }
}

void scatter(const Pass& pass, const Block& block, const End& end, Range vs, int64_t point,
             int64_t first, int64_t count, const float* buffer) {
    switch (end.finish) {
        case Finish::none:
            return scatter<Finish::none>(pass, block, end, vs, point, first, count, buffer);
        case Finish::relu:
            return scatter<Finish::relu>(pass, block, end, vs, point, first, count, buffer);
        case Finish::leaky:
            return scatter<Finish::leaky>(pass, block, end, vs, point, first, count, buffer);
        case Finish::relu_gate:
            return scatter<Finish::relu_gate>(pass, block, end, vs, point, first, count, buffer);
        case Finish::leaky_gate:
            return scatter<Finish::leaky_gate>(pass, block, end, vs, point, first, count, buffer);
    }
}

void gather(Gate gate, const Pass& pass, const Block& block, Range ks, int64_t point, int64_t first,
            int64_t count, float* patch, float* buffer) {
    switch (gate) {
        case Gate::open:
            return gather<Gate::open>(pass, block, ks, point, first, count, patch, buffer);
        case Gate::scaled:
            return gather<Gate::scaled>(pass, block, ks, point, first, count, patch, buffer);
        case Gate::relu:
            return gather<Gate::relu>(pass, block, ks, point, first, count, patch, buffer);
        case Gate::leaky:
            return gather<Gate::leaky>(pass, block, ks, point, first, count, patch, buffer);
    }
}

// A thread's way through tiles, for a part.
struct Worker {
    const Pass& pass;
    const Gate gate;
    const Part part;
    const WeightLayout layout;
    const Block block;
    const End end;
    float* const room;  // of `size`

    Worker(const Pass& pass, Gate gate, const Part& part, float* room)
        : pass(pass),
          gate(gate),
          part(part),
          layout(least(part.in.end * kLanes, pass.in.columns()) - part.in.begin * kLanes,
                 part.out.size()),
          block(part),
          end(pass, part.in),
          room(room) {}

    int64_t patch_size() const { return kFrequencies * part.in.size() * kLanes; }
    int64_t size() const { return round_up(patch_size() + block.size(), 16) + 16; }

    // U at a point, for some k of the part.
    void transform(int64_t point, Range ks, float* u) const {
        const PathConvolution& path = pass.path;
        const int64_t padded = pass.out.padded;
        const int64_t first = part.in.begin * kLanes * padded + part.out.begin * kLanes;
        transform_weights(path.w0 + first, path.dw ? path.dw + first : nullptr, path.alpha[point],
                          pass.in.columns() * padded, padded, layout, ks, u);
    }

    // Some tiles of a point.
    void run(int64_t point, Range tiles, const float* u) const {
        float *patch = room, *buffer = room + patch_size();
        for (int64_t tile = tiles.begin; tile < tiles.end; tile += block.rows) {
            const int64_t count = least(block.rows, tiles.end - tile);
            gather(gate, pass, block, part.in, point, tile, count, patch, buffer + block.slot);
            multiply(layout, block, u, count, buffer);
            scatter(pass, block, end, part.out, point, tile, count, buffer);
        }
    }
};

Parts parts_of(const Pass& pass) {
    constexpr int64_t most_in = 96 / kLanes, room = most_in * (64 / kLanes);
    const int64_t in = even_part(pass.in.vectors, most_in);
    const int64_t out = most(kColumns, room / in / kColumns * kColumns);
    return {pass.in.vectors, pass.out.vectors, in, out};
}

// Calls f(point, tiles) for the points among which some tiles, counted from the first, lie.
template <typename F>
void each_point(Range tiles, int64_t of_point, F f) {
    while (tiles.begin < tiles.end) {
        const int64_t point = tiles.begin / of_point, first = tiles.begin % of_point;
        const int64_t count = least(of_point - first, tiles.size());
        f(point, Range{first, first + count});
        tiles.begin += count;
    }
}

constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of points whose weights are shared at once

void run(const Pass& pass, Gate gate) {
    const PathConvolution& path = pass.path;
    const Parts parts = parts_of(pass);
    int64_t size = 0, u_size = 0;
    parts.each([&](const Part& part) {
        const Worker worker(pass, gate, part, nullptr);
        size = most(size, worker.size());
        u_size = most(u_size, worker.layout.size);
    });
    // A thread with points of its own transforms their weights itself, into one place that stays
    // in its second cache; where a point is shared, so are its weights.
    const bool own = path.points >= path.threads;
    const int64_t together =
        own ? path.threads : least(path.points, most(1, kWeightBytes / 4 / u_size));
    const Scratch scratch(4 * (together * u_size + path.threads * size));
    float *weights = scratch.floats(), *rooms = weights + together * u_size;
    const int64_t of_point = path.samples * pass.tiles.count;

#pragma omp parallel num_threads(path.threads)
    {
        const int id = thread_id(), threads = thread_count();
        float* room = rooms + id * size;
        if (own) {
            float* u = weights + id * u_size;
            const Range mine = share(path.points * of_point, id, threads);
            each_point(mine, of_point, [&](int64_t point, Range tiles) {
                parts.each([&](const Part& part) {
                    const Worker worker(pass, gate, part, room);
                    worker.transform(point, {0, worker.layout.depth}, u);
                    worker.run(point, tiles, u);
                });
            });
        } else {
            for (int64_t begin = 0; begin < path.points; begin += together) {
                const int64_t points = least(together, path.points - begin);
                const Range mine = share(points * of_point, id, threads);
                parts.each([&](const Part& part) {
                    const Worker worker(pass, gate, part, room);
                    const Range ks = share(worker.layout.depth, id, threads);
                    for (int64_t p = 0; p < points; ++p)
                        worker.transform(begin + p, ks, weights + p * u_size);
#pragma omp barrier
                    each_point(mine, of_point, [&](int64_t p, Range tiles) {
                        worker.run(begin + p, tiles, weights + p * u_size);
                    });
#pragma omp barrier
                });
            }
        }
    }
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
    run({path,
         in,
         out,
         Tiles(path.height, path.width, kTile),
         arrays.x,
         nullptr,
         arrays.x_point,
         pixels * in.pitch,
         arrays.residual,
         arrays.residual_point,
         out.pixel(),
         pixels * path.outputs,
         arrays.y,
         slopes,
         path.b0 ? bias : nullptr,
         false,
         nullptr,
         0,
         0,
         0},
        Gate::open);
}

void convolve_input_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Channels out(path.inputs, path.width, 1);
    const int64_t pixels = path.height * path.width;
    const Scratch scratch(4 * path.points * in.padded);
    fill_slopes(path, in, scratch.floats());
    const int64_t sample = pixels * path.outputs;
    const int64_t x_pixel = arrays.x_pixel ? arrays.x_pixel : path.inputs;
    const int64_t more_pixel = arrays.more_pixel ? arrays.more_pixel : path.inputs;
    run({path,
         in,
         out,
         Tiles(path.height, path.width, kTile),
         arrays.gy,
         arrays.saved,
         path.samples * sample,
         sample,
         arrays.more,
         path.samples * pixels * more_pixel,
         more_pixel,
         pixels * path.inputs,
         arrays.gx,
         scratch.floats(),
         nullptr,
         true,
         arrays.before == Activation::none ? nullptr : arrays.x,
         arrays.x_point,
         x_pixel,
         arrays.before == Activation::leaky ? arrays.before_slope : 0},
        gate_of(path));
}

}  // namespace faigfast::FAIGFAST_ISA
