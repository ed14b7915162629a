// A path convolution and its input gradient, which is the convolution of gy with the flipped
// weights. 3×3 kernels with stride 1, and larger ones square by square, use Winograd's transforms.
// Where the weights of one point do not fit the L2 cache, the layer is done in parts of its input
// and output channels.

#include "common/image_gradients.h"
#include "direct/depthwise.h"
#include "direct/direct.h"
#include "direct/linear.h"
#include "direct/thin_convolution.h"
#include "memory.h"
#include "winograd/block.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// One part of a Winograd convolution, as one thread computes it.
struct PartConvolution {
    const Convolution& conv;
    const GradientMask mask;
    const Part part;
    const WeightLayout layout;
    const Block block;
    const PartEpilogue epilogue;
    const bool prefetches;
    const Prefetch input_prefetch, sum_prefetch, residual_prefetch, mask_prefetch;
    float* const room;  // size() floats

    PartConvolution(const Convolution& conv, GradientMask mask, const Part& part, bool prefetches,
                    float* room)
        : conv(conv),
          mask(mask),
          part(part),
          layout(least(part.in.end * kLanes, conv.in.columns()) - part.in.begin * kLanes,
                 part.out.size()),
          block(part),
          epilogue(conv, part, conv.stores_nontemporal()),
          prefetches(prefetches),
          input_prefetch{conv.in,
                         conv.in_height,
                         part.in,
                         1,
                         conv.row_offset(part.square),
                         conv.column_offset(part.square)},
          sum_prefetch{conv.out, conv.tiles.height, part.out},
          residual_prefetch{conv.residual_channels(), conv.tiles.height, part.out},
          mask_prefetch{conv.output_mask_channels(), conv.tiles.height, part.out},
          room(room) {}

    int64_t patch_size() const { return kFrequencies * part.in.size() * kLanes; }
    int64_t size() const { return round_up(patch_size() + block.size(), 16) + 16; }

    // Writes U at a point, for some input channels k of the part.
    void transform(int64_t point, Range ks, float* u) const {
        const PathConvolution& path = conv.path;
        const TapStrides strides({path.inputs, path.outputs, path.shuffle, conv.gradient});
        const int64_t first = part.square * strides.square + strides.first +
                              part.in.begin * kLanes * strides.k + part.out.begin * kLanes;
        transform_weights(path.w0 + first, path.dw ? path.dw + first : nullptr, path.alpha[point],
                          strides, layout, ks, u);
    }

    // Prefetches the inputs of tiles, which the next block transforms.
    void prefetch_inputs(int64_t point, Range some) const {
        const int64_t at = point * conv.values_point;
        conv.tiles.each(some, [&](const Place& place) {
            input_prefetch.tile(conv.values + at, place);
            if (conv.saved) input_prefetch.tile(conv.saved + at, place);
        });
    }

    // Prefetches the arrays that the epilogue of tiles reads.
    void prefetch_epilogue(int64_t point, Range some) const {
        const int64_t at = point * conv.path.samples * conv.out_sample;
        conv.tiles.each(some, [&](const Place& place) {
            if (epilogue.accumulates) sum_prefetch.tile(conv.result + at, place);
            if (epilogue.residual)
                residual_prefetch.tile(epilogue.residual + point * conv.residual_point, place);
            if (masks_output(epilogue.kind))
                mask_prefetch.tile(conv.output_mask + point * conv.output_mask_point, place);
        });
    }

    // Computes some tiles of a point.
    void run(int64_t point, Range tiles, const float* u) const {
        float *patch = room, *buffer = room + patch_size();
        for (int64_t tile = tiles.begin; tile < tiles.end; tile += block.rows) {
            const Range now = block.first({tile, tiles.end});
            const Range next = block.first({now.end, tiles.end});
            const int64_t count = now.size();
            with_mask(mask, [&](auto mask) {
                transform_inputs<mask.value>(conv, block, part, point, tile, count, patch,
                                             buffer + block.slot);
            });
            multiply(layout, block, u, count, buffer, [&](int f) {
                if (!prefetches) return;
                prefetch_inputs(point, share(next, f, kFrequencies));
                prefetch_epilogue(point, share(now, f, kFrequencies));
            });
            with_epilogue(epilogue.kind, [&](auto kind) {
                transform_outputs<kind.value>(conv, block, epilogue, part.out, point, tile, count,
                                              buffer);
            });
        }
    }
};

Parts parts_of(const Convolution& conv) {
    constexpr int64_t most_in = 96 / kLanes, room = most_in * (64 / kLanes);
    const int64_t in = even_part(conv.in.vectors, most_in);
    const int64_t out = most(kColumns, room / in / kColumns * kColumns);
    return {conv.in.vectors, conv.out.vectors, conv.path.kernel.squares(), in, out};
}

constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of transformed weights that threads share

// Calls run(work), where every thread calls work().
template <typename Run>
void with_work(const Convolution& conv, GradientMask mask, Run run) {
    const PathConvolution& path = conv.path;
    if (path.kernel.kind == Kind::point) return each_thread<Linear>(conv, mask, run);
    if (path.kernel.kind == Kind::depthwise) return each_thread<Depthwise>(conv, mask, run);
    if (path.kernel.kind == Kind::direct) return each_thread<Direct>(conv, mask, run);
    if (is_thin(conv.out) && path.is_same_3x3()) return convolve_thin(conv, mask, run);
    const Parts parts = parts_of(conv);
    const bool prefetches = streams(path);
    int64_t size = 0, u_size = 0, count = 0, rows = 0;
    parts.each([&](const Part& part) {
        const PartConvolution one(conv, mask, part, prefetches, nullptr);
        size = most(size, one.size());
        u_size = most(u_size, one.layout.size);
        rows = most(rows, one.block.rows);
        ++count;
    });
    // A thread that has points of its own transforms their weights itself, into one buffer that
    // stays in its L2 cache. Threads that share a point share its weights.
    const bool own = path.points >= path.threads;
    const int64_t together =
        own ? path.threads : least(path.points, most(1, kWeightBytes / 4 / u_size));
    const Scratch scratch(4 * (together * u_size + path.threads * size));
    float *weights = scratch.floats(), *rooms = weights + together * u_size;
    const int64_t of_point = path.samples * conv.tiles.count;
    const Shares shares((own ? path.points : together) * of_point, least(of_point, rows),
                        path.threads);

    run([&] {
        const int id = thread_id();
        float* room = rooms + id * size;
        if (own) {
            float* u = weights + id * u_size;
            int64_t begun = -1;
            shares.each(id, [&](Range some) {
                each_point(some, of_point, [&](int64_t point, Range tiles) {
                    parts.each([&](const Part& part) {
                        const PartConvolution one(conv, mask, part, prefetches, room);
                        if (prefetches) one.prefetch_inputs(point, one.block.first(tiles));
                        if (point != begun || count > 1)
                            one.transform(point, {0, one.layout.depth}, u);
                        one.run(point, tiles, u);
                    });
                    begun = point;
                });
            });
        } else {
            const int threads = thread_count();
            for (int64_t begin = 0; begin < path.points; begin += together) {
                const int64_t points = least(together, path.points - begin);
                parts.each([&](const Part& part) {
                    const PartConvolution one(conv, mask, part, prefetches, room);
                    const Range ks = share(one.layout.depth, id, threads);
                    for (int64_t p = 0; p < points; ++p)
                        one.transform(begin + p, ks, weights + p * u_size);
                    shares.reset(id, threads);
#pragma omp barrier
                    shares.each(id, [&](Range some) {
                        some.end = least(some.end, points * of_point);
                        each_point(some, of_point, [&](int64_t p, Range tiles) {
                            one.run(begin + p, tiles, weights + p * u_size);
                        });
                    });
#pragma omp barrier
                });
            }
        }
        finish_stores();
    });
}

}  // namespace

int64_t packed_size(const Packing& packing) {
    return read_in_place(packing) ? 0 : packing.squares * TapStrides(packing).square;
}

void pack(const Packing& packing, const float* w, float* packed, int threads) {
    const Channels in = packed_in(packing), out = packed_out(packing);
#pragma omp parallel num_threads(threads)
    {
        const Range ks = share(in.columns(), thread_id(), thread_count());
        for (int64_t square = 0; square < packing.squares; ++square)
            (packing.input_gradient ? pack_flipped_taps : pack_taps)(
                w + square * packing.outputs * 9 * packing.inputs, in, out, ks,
                packed + square * TapStrides(packing).square);
    }
}

void convolve(const PathConvolution& path, const ForwardArrays& arrays) {
    const Channels in(path.inputs, path.x_width, 1, arrays.x_pixel);
    const Channels out(path.outputs, path.width, path.shuffle);
    const int64_t columns = path.points * out.padded;
    const Scratch scratch(8 * columns);
    float *bias = scratch.floats(), *slopes = bias + columns;
    fill_slopes(path, out, slopes);
    for (int64_t point = 0; point < path.points && path.b0; ++point)
        for (int64_t j = 0; j < out.padded; ++j) {
            const int64_t o = out.channel(j);
            bias[point * out.padded + j] =
                o < 0 ? 0 : path.b0[o] + (path.db ? path.alpha[point] * path.db[o] : 0);
        }
    const Convolution conv{path,
                           in,
                           out,
                           Tiles(path.height, path.width, kTile),
                           path.x_height,
                           arrays.x,
                           nullptr,
                           arrays.x_point,
                           path.x_height * path.x_width * in.pitch,
                           arrays.residual,
                           arrays.residual_point,
                           out.pixel(),
                           path.height * path.width * path.outputs,
                           arrays.y,
                           slopes,
                           path.b0 ? bias : nullptr,
                           false,
                           nullptr,
                           0,
                           0,
                           0,
                           false};
    with_work(conv, GradientMask::none, [&](auto work) { run_in_parallel(path.threads, work); });
}

void convolve_backward(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Scratch slopes(4 * path.points * in.padded);
    fill_slopes(path, in, slopes.floats());
    const Convolution conv = input_gradient(path, arrays, slopes.floats(), kTile);
    run_backward(
        path, arrays, [&](ThreadWork more) { convolve_weight_gradient(path, arrays, more); },
        [&](auto run) { with_work(conv, mask_of(path), run); });
}

}  // namespace faigfast::FAIGFAST_ISA
