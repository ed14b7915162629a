// Gradients of weights, biases and slopes of each image, summed over its tiles and all points. Each
// block adds Σ over tiles of (A gy Aᵀ) ⊗ (Bᵀ x B) at every frequency; at the end of an image these
// sums are transformed back once. The layer is done in parts of its inputs and outputs, so that the
// sums of a part stay in the L2 cache.

#include "common/activation_gradient.h"
#include "common/gemm.h"
#include "common/image_gradients.h"
#include "direct/depthwise.h"
#include "direct/direct.h"
#include "direct/linear.h"
#include "direct/thin_gradient.h"
#include "memory.h"
#include "streaming.h"
#include "winograd/channel_parts.h"
#include "winograd/prefetch.h"
#include "winograd/transform.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Vectors of input and of output channels in a part.
constexpr int64_t kMostIn = 64 / kLanes;
inline int64_t most_out() {
    return (l2_size() < (size_t{3} << 19) ? 64 : 128) / kLanes;  // sums of 64×64 fill 0.6 MB
}

struct Sizes {
    Channels in, out;
    Tiles tiles;
    int64_t image_tiles;  // of one image, over all points and its samples
    Parts parts;
    int64_t in_row, out_row;  // floats of a part
    int64_t rows;             // tiles of a block
    int64_t in_slot, out_slot, sum_slot;

    Sizes(const PathConvolution& path, int64_t images, int64_t x_pixel)
        : in(path.inputs, path.x_width, 1, x_pixel),
          out(path.outputs, path.width, path.shuffle),
          tiles(path.height, path.width, kTile),
          image_tiles(path.points * (path.samples / images) * tiles.count),
          parts{in.vectors, out.vectors, path.kernel.squares(), even_part(in.vectors, kMostIn),
                even_part(out.vectors, most_out())},
          in_row(parts.in_part * kLanes),
          out_row(parts.out_part * kLanes),
          rows(block_rows(in_row + out_row)),
          in_slot((rows + 1) * in_row),
          out_slot((rows + 1) * out_row),
          sum_slot(out_row * in_row + 16) {}

    static int64_t block_rows(int64_t both) {
        const int64_t tiles = 24 * 128 / both;
        return tiles < 24 ? 24 : tiles > 96 ? 96 : tiles;
    }
    int64_t buffer() const {
        return round_up(kFrequencies * (in_slot + out_slot + sum_slot), 16) + 16;
    }
};

// The Winograd gradient, as one thread computes it.
struct WinogradGradient {
    const PathConvolution& path;
    const BackwardArrays& arrays;
    const Sizes& sizes;
    const float* slopes;  // [points, padded]
    float *x_block, *g_block, *sum;
    float *bias_sums, *slope_sums;  // [padded]
    bool prefetches;

    // Transforms x at tiles [first, first + count) of an image, counted through points and samples.
    void transform_x(const Part& part, int64_t image, int64_t first, int64_t count) const {
        const Channels& in = sizes.in;
        const Range ks = part.in;
        const int64_t row = in.row(), pixel = in.pixel(), slot = sizes.in_slot;
        const int64_t row_offset = path.kernel.row_offset(part.square);
        const int64_t column_offset = path.kernel.column_offset(part.square);
        each_tile(image, first, count, [&](int64_t i, int64_t point, const Place& place) {
            const int64_t y = place.y - 1 + row_offset, x = place.x - 1 + column_offset;
            const float* from = arrays.x + point * arrays.x_point +
                                place.sample * path.x_height * row + y * row + x * pixel;
            const bool inside =
                y >= 0 && x >= 0 && y + kPatch <= path.x_height && x + kPatch <= path.x_width;
            in.each_vector(ks, [&](int64_t v, int64_t offset, int lanes) {
                const float* at = from + offset;
                float* to = x_block + i * sizes.in_row + (v - ks.begin) * kLanes;
                if (inside && lanes == kLanes) {
                    transform_input([&](int r, int c) { return load(at + r * row + c * pixel); },
                                    to, slot);
                    return;
                }
                transform_input(
                    [&](int r, int c) {
                        const bool here = y + r >= 0 && x + c >= 0 && y + r < path.x_height &&
                                          x + c < path.x_width;
                        return here ? read(at + r * row + c * pixel, lanes) : Vec{};
                    },
                    to, slot);
            });
        });
    }

    template <GradientMask kMask>
    void transform_g(const Part& part, int64_t image, int64_t first, int64_t count) const {
        const Channels& out = sizes.out;
        const int64_t row = out.row(), pixel = out.pixel(), slot = sizes.out_slot;
        const float scale = path.scale;
        const bool with_slopes = kMask == GradientMask::leaky && arrays.gs && part.is_first();
        each_tile(image, first, count, [&](int64_t i, int64_t point, const Place& place) {
            const int64_t at = (point * path.samples + place.sample) * path.height * row +
                               place.y * row + place.x * pixel;
            const int64_t high = least(kTile, path.height - place.y);
            const int64_t wide = least(kTile, path.width - place.x);
            out.each_vector(part.out, [&](int64_t v, int64_t offset, int lanes) {
                const float* gy = arrays.gy + at + offset;
                const float* saved =
                    kMask >= GradientMask::relu ? arrays.saved + at + offset : nullptr;
                float* to = g_block + i * sizes.out_row + (v - part.out.begin) * kLanes;
                const Vec slope = kMask == GradientMask::leaky
                                      ? load(slopes + point * out.padded + v * kLanes)
                                      : Vec{};
                if (with_slopes) add_slopes(gy, saved, lanes, high, wide, v);
                if (high == kTile && wide == kTile && lanes == kLanes) {
                    transform_gradient(
                        [&](int r, int c) {
                            const int64_t here = r * row + c * pixel;
                            const Vec z = kMask >= GradientMask::relu ? load(saved + here) : Vec{};
                            return masked<kMask>(load(gy + here), z, scale, slope);
                        },
                        to, slot);
                    return;
                }
                transform_gradient(
                    [&](int r, int c) {
                        if (r >= high || c >= wide) return Vec{};
                        const int64_t here = r * row + c * pixel;
                        const Vec z =
                            kMask >= GradientMask::relu ? read(saved + here, lanes) : Vec{};
                        return masked<kMask>(read(gy + here, lanes), z, scale, slope);
                    },
                    to, slot);
            });
        });
    }

    // Calls f(i, point, place) for tiles [first, first + count) of an image.
    template <typename F>
    void each_tile(int64_t image, int64_t first, int64_t count, F f) const {
        const int64_t each = path.samples / arrays.images, begin = image * each;
        Place place = sizes.tiles.place(first);
        int64_t point = place.sample / each;
        place.sample = begin + place.sample % each;
        for (int64_t i = 0; i < count; ++i) {
            f(i, point, place);
            sizes.tiles.advance(place);
            if (place.sample < begin + each) continue;
            place.sample = begin;
            ++point;
        }
    }

    // Adds the gradients of slopes: Σ of scale · gy · z over pixels where z ≤ 0.
    void add_slopes(const float* gy, const float* saved, int lanes, int64_t high, int64_t wide,
                    int64_t v) const {
        const int64_t row = sizes.out.row(), pixel = sizes.out.pixel();
        Vec sum = {};
        for (int64_t r = 0; r < high; ++r)
            for (int64_t c = 0; c < wide; ++c) {
                const int64_t here = r * row + c * pixel;
                const Vec z = read(saved + here, lanes);
                sum += z > 0 ? Vec{} : path.scale * read(gy + here, lanes) * z;
            }
        store(slope_sums + v * kLanes, load(slope_sums + v * kLanes) + sum);
    }

    // Prefetches what the transforms of the next tiles read.
    void prefetch_inputs(const Part& part, int64_t image, Range some) const {
        if (some.size() <= 0) return;
        const Prefetch xs{sizes.in,
                          path.x_height,
                          part.in,
                          1,
                          path.kernel.row_offset(part.square),
                          path.kernel.column_offset(part.square)};
        const Prefetch gs{sizes.out, path.height, part.out};
        const bool reads_saved = mask_of(path) >= GradientMask::relu;
        each_tile(image, some.begin, some.size(), [&](int64_t, int64_t point, const Place& place) {
            const int64_t at = point * path.samples * path.height * sizes.out.row();
            xs.tile(arrays.x + point * arrays.x_point, place);
            gs.tile(arrays.gy + at, place);
            if (reads_saved) gs.tile(arrays.saved + at, place);
        });
    }

    template <GradientMask kMask>
    void add_block(const Part& part, int64_t image, int64_t first, int64_t count, Range next,
                   bool overwrites) const {
        const Channels& out = sizes.out;
        if (arrays.gw) transform_x(part, image, first, count);
        transform_g<kMask>(part, image, first, count);
        if (arrays.gb && part.is_first()) add_biases(part.out, count);
        if (!arrays.gw) return;
        const int64_t end = least(part.out.end * kLanes, out.columns());
        const int64_t rows = end - part.out.begin * kLanes;
        for (int f = 0; f < kFrequencies; ++f) {
            if (prefetches) prefetch_inputs(part, image, share(next, f, kFrequencies));
            for (int64_t v = 0; v < part.in.size(); v += kColumns) {
                const Operands operands{g_block + f * sizes.out_slot,
                                        1,
                                        sizes.out_row,
                                        x_block + f * sizes.in_slot + v * kLanes,
                                        sizes.in_row,
                                        sum + f * sizes.sum_slot + v * kLanes,
                                        sizes.in_row,
                                        count};
                const int64_t vectors = least(kColumns, part.in.size() - v);
                if (overwrites)
                    multiply_panel<false>(operands, rows, vectors);
                else
                    multiply_panel<true>(operands, rows, vectors);
            }
        }
    }

    void add_biases(Range vs, int64_t count) const {
        // At frequency (1, 1), A gy Aᵀ is the sum of gy over the tile.
        const float* whole = g_block + (kPatch + 1) * sizes.out_slot;
        add_rows_to(bias_sums + vs.begin * kLanes, whole, count, sizes.out_row, vs.size() * kLanes);
    }

    // Adds tiles [first, last) of an image.
    template <GradientMask kMask>
    void add_tiles(int64_t image, int64_t first, int64_t last, const ImageGradients& to) const {
        const Channels& out = sizes.out;
        for (int64_t j = 0; j < out.padded; ++j) bias_sums[j] = slope_sums[j] = 0;
        sizes.parts.each([&](const Part& part) {
            if (!arrays.gw && !part.is_first()) return;
            for (int64_t tile = first; tile < last; tile += sizes.rows) {
                const int64_t next = least(last, tile + sizes.rows);
                add_block<kMask>(part, image, tile, next - tile,
                                 {next, least(last, next + sizes.rows)}, tile == first);
            }
            if (to.gw) write_weights(part, to.gw);
        });
        for (int64_t j = 0; j < out.columns(); ++j) {
            const int64_t o = out.channel(j);
            if (o < 0) continue;
            if (to.gb) to.gb[o] = bias_sums[j];
            if (to.gs) to.gs[o] = slope_sums[j];
        }
    }

    // Transforms the sums of a part back. gw is [outputs, inputs, 3, 3], as in torch.
    void write_weights(const Part& part, float* gw) const {
        const Channels& out = sizes.out;
        const int64_t end = least(part.out.end * kLanes, out.columns());
        for (int64_t j = part.out.begin * kLanes; j < end; ++j) {
            const int64_t o = out.channel(j);
            if (o < 0) continue;
            const float* row = sum + (j - part.out.begin * kLanes) * sizes.in_row;
            for (int64_t v = 0; v < part.in.size(); ++v) {
                Vec w[9];
                transform_weight_gradient(row + v * kLanes, sizes.sum_slot, w);
                float taps[9 * kLanes];
                for (int t = 0; t < 9; ++t) store(taps + t * kLanes, w[t]);
                const int64_t c = (part.in.begin + v) * kLanes;
                float* at = gw + ((part.square * path.outputs + o) * path.inputs + c) * 9;
                const int64_t lanes = least(kLanes, path.inputs - c);
                for (int64_t l = 0; l < lanes; ++l)
                    for (int t = 0; t < 9; ++t) at[l * 9 + t] = taps[t * kLanes + l];
            }
        }
    }

    void add_tiles(int64_t image, int64_t first, int64_t last, const ImageGradients& to) const {
        with_mask(mask_of(path), [&](auto mask) { add_tiles<mask.value>(image, first, last, to); });
    }
};

}  // namespace

void convolve_weight_gradient(const PathConvolution& path, const BackwardArrays& arrays,
                              ThreadWork more) {
    const Channels out(path.outputs, path.width, path.shuffle);
    const Scratch scratch(4 * path.points * out.padded);
    float* slopes = scratch.floats();
    fill_slopes(path, out, slopes);
    const auto by_rows = [&](const auto& gradient) {
        sum_image_gradients(path, arrays, gradient.rows(), gradient.size(), more,
                            [&](float* room, int64_t image, Range rows, const ImageGradients& to) {
                                gradient.add_rows(room, image, rows, to);
                            });
    };
    if (path.kernel.kind == Kind::point) return by_rows(LinearGradient(path, arrays, slopes));
    if (path.kernel.kind == Kind::depthwise)
        return by_rows(DepthwiseGradient(path, arrays, slopes));
    if (path.kernel.kind == Kind::direct) return by_rows(DirectGradient(path, arrays, slopes));
    const ThinGradient thin(path, arrays, slopes);
    if (thin.applies()) return by_rows(thin);
    const Sizes sizes(path, arrays.images, arrays.x_pixel);
    const int64_t buffer = sizes.buffer();
    const bool prefetches = streams(path);
    sum_image_gradients(path, arrays, sizes.image_tiles, buffer + 2 * out.padded, more,
                        [&](float* room, int64_t image, Range tiles, const ImageGradients& to) {
                            float* g_block = room + kFrequencies * sizes.in_slot;
                            float* sum = g_block + kFrequencies * sizes.out_slot;
                            float* bias_sums = room + buffer;
                            const WinogradGradient gradient{
                                path,      arrays,    sizes,
                                slopes,    room,      g_block,
                                sum,       bias_sums, bias_sums + out.padded,
                                prefetches};
                            gradient.add_tiles(image, tiles.begin, tiles.end, to);
                        });
}

}  // namespace faigfast::FAIGFAST_ISA
