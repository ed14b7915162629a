// A path convolution, and its input gradient, which is the convolution of the gradient with the
// weights turned round. Where the weights of a point would not stay in the second cache, it is done
// in parts of what goes in and of what comes out; kernels of several squares are done square by
// square.

#include "block.h"
#include "depthwise.h"
#include "direct.h"
#include "linear.h"
#include "memory.h"
#include "thin_convolution.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// A thread's way through tiles, for a part.
struct Worker {
    const Pass& pass;
    const Gate gate;
    const Part part;
    const WeightLayout layout;
    const Block block;
    const End end;
    const bool ahead;  // lines are asked for
    const Ahead values, sums, rests, gates;
    float* const room;  // of `size`

    Worker(const Pass& pass, Gate gate, const Part& part, bool ahead, float* room)
        : pass(pass),
          gate(gate),
          part(part),
          layout(least(part.in.end * kLanes, pass.in.columns()) - part.in.begin * kLanes,
                 part.out.size()),
          block(part),
          end(pass, part, pass.stores_past()),
          ahead(ahead),
          values{pass.in, pass.in_height,          part.in,
                 1,       pass.below(part.square), pass.beside(part.square)},
          sums{pass.out, pass.tiles.height, part.out},
          rests{pass.rests(), pass.tiles.height, part.out},
          gates{pass.gates(), pass.tiles.height, part.out},
          room(room) {}

    int64_t patch_size() const { return kFrequencies * part.in.size() * kLanes; }
    int64_t size() const { return round_up(patch_size() + block.size(), 16) + 16; }

    // U at a point, for some k of the part.
    void transform(int64_t point, Range ks, float* u) const {
        const PathConvolution& path = pass.path;
        const TapPlaces places({path.inputs, path.outputs, path.shuffle, pass.gradient});
        const int64_t first = part.square * places.square + places.first +
                              part.in.begin * kLanes * places.k + part.out.begin * kLanes;
        transform_weights(path.w0 + first, path.dw ? path.dw + first : nullptr, path.alpha[point],
                          places, layout, ks, u);
    }

    // Tiles whose transform comes next: what it reads is asked for.
    void ask_for_values(int64_t point, Range some) const {
        const int64_t at = point * pass.values_point;
        pass.tiles.each(some, [&](const Place& place) {
            values.ask_for(pass.values + at, place);
            if (pass.saved) values.ask_for(pass.saved + at, place);
        });
    }

    // Tiles that are transformed back next.
    void ask_for_rest(int64_t point, Range some) const {
        const int64_t at = point * pass.path.samples * pass.out_sample;
        pass.tiles.each(some, [&](const Place& place) {
            if (end.adds) sums.ask_for(pass.result + at, place);
            if (end.residual) rests.ask_for(end.residual + point * pass.residual_point, place);
            if (has_gate(end.finish)) gates.ask_for(pass.gate + point * pass.gate_point, place);
        });
    }

    // Some tiles of a point.
    void run(int64_t point, Range tiles, const float* u) const {
        float *patch = room, *buffer = room + patch_size();
        for (int64_t tile = tiles.begin; tile < tiles.end; tile += block.rows) {
            const Range now = block.first({tile, tiles.end});
            const Range next = block.first({now.end, tiles.end});
            const int64_t count = now.size();
            with_gate(gate, [&](auto gate) {
                gather<gate.value>(pass, block, part, point, tile, count, patch,
                                   buffer + block.slot);
            });
            multiply(layout, block, u, count, buffer, [&](int f) {
                if (!ahead) return;
                ask_for_values(point, share(next, f, kFrequencies));
                ask_for_rest(point, share(now, f, kFrequencies));
            });
            with_finish(end.finish, [&](auto finish) {
                scatter<finish.value>(pass, block, end, part.out, point, tile, count, buffer);
            });
        }
    }
};

Parts parts_of(const Pass& pass) {
    constexpr int64_t most_in = 96 / kLanes, room = most_in * (64 / kLanes);
    const int64_t in = even_part(pass.in.vectors, most_in);
    const int64_t out = most(kColumns, room / in / kColumns * kColumns);
    return {pass.in.vectors, pass.out.vectors, pass.path.kernel.squares(), in, out};
}

constexpr int64_t kWeightBytes = int64_t{8} << 20;  // of points whose weights are shared at once

void run(const Pass& pass, Gate gate) {
    const PathConvolution& path = pass.path;
    if (path.kernel.kind == Kind::point) return each_thread_alone<Linear>(pass, gate);
    if (path.kernel.kind == Kind::depthwise) return each_thread_alone<Depthwise>(pass, gate);
    if (path.kernel.kind == Kind::direct) return each_thread_alone<Direct>(pass, gate);
    if (is_thin(pass.out) && path.is_middle()) return convolve_rows(pass, gate);
    const Parts parts = parts_of(pass);
    const bool ahead = streams(path);
    int64_t size = 0, u_size = 0;
    parts.each([&](const Part& part) {
        const Worker worker(pass, gate, part, ahead, nullptr);
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
                    const Worker worker(pass, gate, part, ahead, room);
                    if (ahead) worker.ask_for_values(point, worker.block.first(tiles));
                    worker.transform(point, {0, worker.layout.depth}, u);
                    worker.run(point, tiles, u);
                });
            });
        } else {
            for (int64_t begin = 0; begin < path.points; begin += together) {
                const int64_t points = least(together, path.points - begin);
                const Range mine = share(points * of_point, id, threads);
                parts.each([&](const Part& part) {
                    const Worker worker(pass, gate, part, ahead, room);
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
        finish_stores();
    }
}

}  // namespace

int64_t packed_size(const Packing& packing) {
    return read_as_they_are(packing) ? 0 : packing.squares * TapPlaces(packing).square;
}

void pack(const Packing& packing, const float* w, float* packed, int threads) {
    const Channels in = packed_in(packing), out = packed_out(packing);
#pragma omp parallel num_threads(threads)
    {
        const Range ks = share(in.columns(), thread_id(), thread_count());
        for (int64_t square = 0; square < packing.squares; ++square)
            (packing.turned ? pack_turned_taps : pack_taps)(
                w + square * packing.outputs * 9 * packing.inputs, in, out, ks,
                packed + square * TapPlaces(packing).square);
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
    run({path,
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
         0},
        Gate::open);
}

void convolve_input_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Channels out(path.inputs, path.x_width, 1);
    const int64_t pixels = path.x_height * path.x_width;
    const Scratch scratch(4 * path.points * in.padded);
    fill_slopes(path, in, scratch.floats());
    const int64_t sample = path.height * path.width * path.outputs;
    const int64_t x_pixel = arrays.x_pixel ? arrays.x_pixel : path.inputs;
    const int64_t more_pixel = arrays.more_pixel ? arrays.more_pixel : path.inputs;
    run({path,
         in,
         out,
         Tiles(path.x_height, path.x_width, kTile),
         path.height,
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
