#pragma once

// A block of tiles: its inputs are transformed, multiplied by the weights of every frequency, and
// transformed back before the next block begins, so that the block stays in the L2 cache.

#include "../common/convolution.h"
#include "channel_parts.h"
#include "prefetch.h"
#include "weights.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Tiles of a block, few enough that they and their products stay in the L2 cache.
inline int64_t block_tiles(int64_t row, int64_t columns) {
    const int64_t unit = rows_of_tile(least(columns, kColumns)),
                  tiles = 24 * 64 / row / unit * unit;
    return tiles < 24 ? 24 : tiles > 96 ? 96 : tiles;
}

struct Block {
    int64_t rows, row, slot;

    explicit Block(const Part& part)
        : rows(0), row(most(part.in.size(), part.out.size()) * kLanes), slot(0) {
        rows = block_tiles(row, part.out.size());
        slot = (rows + 1) * row;  // an odd number of rows, against aliases in the L1 cache
    }
    // One slot more than there are frequencies: the products of a frequency overwrite the inputs of
    // the frequency before.
    int64_t size() const { return (kFrequencies + 1) * slot; }

    // The tiles among `tiles` that the first block takes.
    Range first(Range tiles) const { return {tiles.begin, least(tiles.begin + rows, tiles.end)}; }
};

// Transforms tiles [first, first + count), counted through all samples at a point, of the part's
// input channels. `patch` is scratch for [36, part's channels] floats.
template <GradientMask kMask>
void transform_inputs(const Convolution& conv, const Block& block, const Part& part, int64_t point,
                      int64_t first, int64_t count, float* patch, float* buffer) {
    const Tiles& tiles = conv.tiles;
    const Channels& in = conv.in;
    const Range ks = part.in;
    const int64_t row_offset = conv.row_offset(part.square);
    const int64_t column_offset = conv.column_offset(part.square);
    const int64_t row = in.row(), pixel = in.pixel(), padded = ks.size() * kLanes;
    const float* slopes = conv.slopes + point * in.padded;
    const float scale = conv.path.scale;
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t y = place.y - 1 + row_offset, x = place.x - 1 + column_offset;
        const int64_t at =
            point * conv.values_point + place.sample * conv.values_sample + y * row + x * pixel;
        float* to = buffer + i * block.row;
        const int64_t top = most(0, -y), bottom = least(kPatch, conv.in_height - y);
        const int64_t left = most(0, -x), right = least(kPatch, in.width - x);
        const bool whole = top == 0 && left == 0 && bottom == kPatch && right == kPatch;
        if (kMask == GradientMask::none || kLanes == 16) {
            in.each_vector(ks, [&](int64_t v, int64_t offset, int lanes) {
                const float* from = conv.values + at + offset;
                const float* saved =
                    kMask >= GradientMask::relu ? conv.saved + at + offset : nullptr;
                const Vec slope = kMask == GradientMask::leaky ? load(slopes + v * kLanes) : Vec{};
                float* column = to + (v - ks.begin) * kLanes;
                const auto pixel_at = [&](int r, int c) {
                    const int64_t here = r * row + c * pixel;
                    const Vec z = kMask >= GradientMask::relu ? read(saved + here, lanes) : Vec{};
                    return masked<kMask>(read(from + here, lanes), z, scale, slope);
                };
                if (whole) {
                    transform_input(pixel_at, column, block.slot);
                } else {
                    transform_input(
                        [&](int r, int c) {
                            const bool inside = r >= top && r < bottom && c >= left && c < right;
                            return inside ? pixel_at(r, c) : Vec{};
                        },
                        column, block.slot);
                }
            });
            continue;
        }
        // Pixel by pixel: rows of two images, read together, would map to the same sets of the L1
        // cache and evict each other.
        if (!whole)
            for (int64_t j = 0; j < kFrequencies * padded; j += kLanes) store(patch + j, Vec{});
        for (int64_t r = top; r < bottom; ++r)
            for (int64_t c = left; c < right; ++c) {
                float* here = patch + (r * kPatch + c) * padded;
                const int64_t there = at + r * row + c * pixel;
                in.each_vector(ks, [&](int64_t v, int64_t offset, int lanes) {
                    const float* from = conv.values + there + offset;
                    const Vec z = kMask >= GradientMask::relu
                                      ? read(conv.saved + there + offset, lanes)
                                      : Vec{};
                    const Vec slope =
                        kMask == GradientMask::leaky ? load(slopes + v * kLanes) : Vec{};
                    store(here + (v - ks.begin) * kLanes,
                          masked<kMask>(read(from, lanes), z, scale, slope));
                });
            }
        for (int64_t j = 0; j < padded; j += kLanes) {
            const float* from = patch + j;
            transform_input([&](int r, int c) { return load(from + (r * kPatch + c) * padded); },
                            to + j, block.slot);
        }
    }
}

// Multiplies a block by the weights of all frequencies; calls before(f) ahead of frequency f.
template <typename Before>
void multiply(const WeightLayout& layout, const Block& block, const float* u, int64_t count,
              float* buffer, Before before) {
    for (int f = 0; f < kFrequencies; ++f) {
        before(f);
        for (int64_t panel = 0; panel < layout.panels; ++panel)
            multiply_panel<false>(
                {buffer + (f + 1) * block.slot, block.row, 1,
                 u + f * layout.slot + panel * layout.panel, layout.row,
                 buffer + f * block.slot + panel * kPanel, block.row, layout.depth},
                count, least(kColumns, layout.vectors - panel * kColumns));
    }
}

// The epilogue of one part. Only the part with the last input channels, in the last square, applies
// the convolution's epilogue; the parts before it store plain sums.
struct PartEpilogue {
    Epilogue kind;
    float scale;
    const float *bias, *residual;
    bool accumulates;  // adds to the sums of the parts before
    // Also for plain sums: the next part reads them too late for the cache to hold them.
    bool nontemporal;

    PartEpilogue(const Convolution& conv, const Part& part, bool nontemporal)
        : kind(Epilogue::none),
          scale(1),
          bias(nullptr),
          residual(nullptr),
          accumulates(!part.is_first()),
          nontemporal(nontemporal) {
        if (part.in.end < conv.in.vectors || part.square + 1 < conv.path.kernel.squares()) return;
        kind = conv.epilogue();
        scale = conv.scale();
        bias = conv.bias;
        residual = conv.residual;
    }
};

// Transforms products of tiles back, and applies the epilogue.
template <Epilogue kEpilogue>
void transform_outputs(const Convolution& conv, const Block& block, const PartEpilogue& epilogue,
                       Range vs, int64_t point, int64_t first, int64_t count, const float* buffer) {
    const Tiles& tiles = conv.tiles;
    const Channels& out = conv.out;
    const int64_t row = out.row(), pixel = out.pixel();
    const Vec scale = broadcast(epilogue.scale);
    float* result = conv.result + point * conv.path.samples * conv.out_sample;
    const float* biases = epilogue.bias ? epilogue.bias + point * out.padded : nullptr;
    const float* slopes = conv.slopes + point * out.padded;
    const float* residuals =
        epilogue.residual ? epilogue.residual + point * conv.residual_point : nullptr;
    const Channels residual_channels = conv.residual_channels();
    const int64_t residual_pixel = residual_channels.pixel();
    const int64_t residual_row = residual_channels.row();
    const int64_t mask_row = conv.output_mask_channels().row();
    const Vec mask_slope = broadcast(conv.output_mask_slope);
    Place place = tiles.place(first);
    for (int64_t i = 0; i < count; ++i, tiles.advance(place)) {
        const int64_t high = least(kTile, tiles.height - place.y);
        const int64_t wide = least(kTile, tiles.width - place.x);
        const int64_t at = place.sample * conv.out_sample + place.y * row + place.x * pixel;
        const int64_t residual_at = place.sample * tiles.height * residual_row +
                                    place.y * residual_row + place.x * residual_pixel;
        const float* mask_at = !masks_output(kEpilogue)
                                   ? nullptr
                                   : conv.output_mask + point * conv.output_mask_point +
                                         (place.sample * tiles.height + place.y) * mask_row +
                                         place.x * conv.output_mask_pixel;
        out.each_vector(vs, [&](int64_t v, int64_t offset, int lanes) {
            float* to = result + at + offset;
            const float* from = buffer + i * block.row + (v - vs.begin) * kLanes;
            const float* residual = residuals ? residuals + residual_at + offset : nullptr;
            const Vec bias = biases ? load(biases + v * kLanes) : Vec{};
            const Vec slope = kEpilogue == Epilogue::leaky ? load(slopes + v * kLanes) : Vec{};
            const auto activate = [&](Vec value) {
                return activated<kEpilogue>(value, bias, slope, scale);
            };
            const auto mask = [&](int r, int c, Vec value) {
                if (!masks_output(kEpilogue)) return value;
                const float* saved = mask_at + r * mask_row + c * conv.output_mask_pixel + offset;
                return mask_output<kEpilogue>(value, read(saved, lanes), mask_slope);
            };
            const auto put = [&](float* pixel, Vec value) {
                if (epilogue.nontemporal)
                    store_nontemporal(pixel, value);
                else
                    store(pixel, value);
            };
            const bool whole = high == kTile && wide == kTile && lanes == kLanes;
            if (whole && !residual && !epilogue.accumulates) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    put(to + r * row + c * pixel, mask(r, c, activate(value)));
                });
            } else if (whole) {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    const int64_t here = r * row + c * pixel;
                    if (epilogue.accumulates) value += load(to + here);
                    value = activate(value);
                    if (residual) value += load(residual + r * residual_row + c * residual_pixel);
                    put(to + here, mask(r, c, value));
                });
            } else {
                transform_output(from, block.slot, [&](int r, int c, Vec value) {
                    if (r >= high || c >= wide) return;
                    const int64_t here = r * row + c * pixel;
                    if (epilogue.accumulates) value += load(to + here, lanes);
                    value = activate(value);
                    if (residual)
                        value += load(residual + r * residual_row + c * residual_pixel, lanes);
                    store(to + here, mask(r, c, value), lanes);
                });
            }
        });
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
