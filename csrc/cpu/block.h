#pragma once

// A block of tiles: transformed, multiplied with the weights of all frequencies, and transformed
// back, before the next one is begun, so that it stays in the second cache.

#include "ahead.h"
#include "parts.h"
#include "pass.h"
#include "weights.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Tiles of a block, such that they and their products stay in the second cache.
inline int64_t block_tiles(int64_t row) {
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

    // Those of some tiles that the first block takes.
    Range first(Range tiles) const { return {tiles.begin, least(tiles.begin + rows, tiles.end)}; }
};

// Transforms tiles [first, first + count) of all samples at a point, of what goes in by a part;
// `patch` [36, its vectors] is room.
template <Gate kGate>
void gather(const Pass& pass, const Block& block, const Part& part, int64_t point, int64_t first,
            int64_t count, float* patch, float* buffer) {
    const Tiles& tiles = pass.tiles;
    const Channels& in = pass.in;
    const Range ks = part.in;
    const int64_t below = pass.below(part.square), beside = pass.beside(part.square);
    const int64_t row = in.row(), pixel = in.pixel(), padded = ks.size() * kLanes;
    const float* slopes = pass.slopes + point * in.padded;
    const float scale = pass.path.scale;
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t y = place.y - 1 + below, x = place.x - 1 + beside;
        const int64_t at =
            point * pass.values_point + place.sample * pass.values_sample + y * row + x * pixel;
        float* to = buffer + i * block.row;
        const int64_t top = most(0, -y), bottom = least(kPatch, pass.in_height - y);
        const int64_t left = most(0, -x), right = least(kPatch, in.width - x);
        const bool inside = top == 0 && left == 0 && bottom == kPatch && right == kPatch;
        if ((kGate == Gate::open || kLanes == 16) && inside && in.group % kLanes == 0) {
            in.each_vector(ks, [&](int64_t v, int64_t offset, int) {
                const float* from = pass.values + at + offset;
                const float* gate = kGate >= Gate::relu ? pass.saved + at + offset : nullptr;
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

// All frequencies of a block; calls beside(f) before each.
template <typename Beside>
void multiply(const WeightLayout& layout, const Block& block, const float* u, int64_t count,
              float* buffer, Beside beside) {
    for (int f = 0; f < kFrequencies; ++f) {
        beside(f);
        for (int64_t panel = 0; panel < layout.panels; ++panel)
            multiply_panel<false>(
                {buffer + (f + 1) * block.slot, block.row, 1,
                 u + f * layout.slot + panel * layout.panel, kPanel,
                 buffer + f * block.slot + panel * kPanel, block.row, layout.depth},
                count, least(kColumns, layout.vectors - panel * kColumns));
    }
}

// What a part does with its sums: all but the last of what goes in, in the last square, leave them
// as they are.
struct End {
    Finish finish;
    float scale;
    const float *bias, *residual;
    bool adds;  // to the sums of the parts before
    bool past;  // stores past the caches: sums of parts too, which do not wait there long enough

    End(const Pass& pass, const Part& part, bool past)
        : finish(Finish::none),
          scale(1),
          bias(nullptr),
          residual(nullptr),
          adds(!part.begins()),
          past(past) {
        if (part.in.end < pass.in.vectors || part.square + 1 < pass.path.kernel.squares()) return;
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
    const Channels rests = pass.rests();
    const int64_t rest_pixel = rests.pixel(), rest_row = rests.row();
    const int64_t gate_row = pass.gates().row();
    const Vec gate_slope = broadcast(pass.gate_slope);
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t high = least(kTile, tiles.height - place.y);
        const int64_t wide = least(kTile, tiles.width - place.x);
        const int64_t at = place.sample * pass.out_sample + place.y * row + place.x * pixel;
        const int64_t rest_at =
            place.sample * tiles.height * rest_row + place.y * rest_row + place.x * rest_pixel;
        const float* gate_at = !has_gate(kFinish)
                                   ? nullptr
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
                return finished<kFinish>(value, shift, slope, scale);
            };
            const auto gate = [&](int r, int c, Vec value) {
                if (!has_gate(kFinish)) return value;
                const float* saved = gate_at + r * gate_row + c * pass.gate_pixel + offset;
                return behind<kFinish>(value, read(saved, lanes), gate_slope);
            };
            const auto put = [&](float* pixel, Vec value) {
                if (end.past)
                    store_past(pixel, value);
                else
                    store(pixel, value);
            };
            const bool whole = high == kTile && wide == kTile && lanes == kLanes;
            if (whole && !rest && !end.adds) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    put(to + r * row + c * pixel, gate(r, c, finish(value)));
                });
            } else if (whole) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    const int64_t here = r * row + c * pixel;
                    if (end.adds) value += load(to + here);
                    value = finish(value);
                    if (rest) value += load(rest + r * rest_row + c * rest_pixel);
                    put(to + here, gate(r, c, value));
                });
            } else {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    if (r >= high || c >= wide) return;
                    const int64_t here = r * row + c * pixel;
                    if (end.adds) value += load(to + here, lanes);
                    value = finish(value);
                    if (rest) value += load(rest + r * rest_row + c * rest_pixel, lanes);
                    store(to + here, gate(r, c, value), lanes);
                });
            }
        });
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
