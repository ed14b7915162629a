#pragma once

// One convolution, forward or as an input gradient, and what is done to a value before it is
// stored.

#include "gate.h"
#include "memory.h"
#include "streaming.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// What is done to a value before it is stored: an activation, or the gate of one.
enum class Finish { none, relu, leaky, relu_gate, leaky_gate };

// What one convolution reads and writes, whichever direction it goes.
struct Pass {
    const PathConvolution& path;
    Channels in, out;
    Tiles tiles;                  // of what comes out
    int64_t in_height;            // of what goes in, not shuffled; its width is that of `in`
    const float *values, *saved;  // saved: null where the gate needs nothing
    int64_t values_point, values_sample;
    const float* residual;
    int64_t residual_point, residual_pixel, out_sample;  // residual_pixel: in floats, unshuffled
    float* result;
    // Of the gate where a gradient is read, of the activation where y is written.
    const float* slopes;  // [points, padded]
    const float* bias;    // [points, padded], or null
    bool gradient;
    // Of a gradient: what stood before its activation is to have it; null: it stays as it is.
    const float* gate;
    int64_t gate_point, gate_pixel;
    float gate_slope;

    // Where a square of taps reads: so far from what it gives.
    int64_t below(int64_t square) const {
        return gradient ? -path.kernel.below(square) : path.kernel.below(square);
    }
    int64_t beside(int64_t square) const {
        return gradient ? -path.kernel.beside(square) : path.kernel.beside(square);
    }

    // What goes in of a sample.
    GatedRow image(Gate gate, int64_t point, int64_t sample) const {
        const int64_t at = point * values_point + sample * values_sample;
        return {gate,        in,
                values + at, saved ? saved + at : nullptr,
                path.scale,  slopes + point * in.padded};
    }

    // Pixels of a sample that come out, not shuffled.
    int64_t out_pixels() const { return tiles.height * tiles.width; }

    // Of what comes out.
    Finish finish() const {
        if (gate) return gate_slope == 0 ? Finish::relu_gate : Finish::leaky_gate;
        if (gradient || path.activation == Activation::none) return Finish::none;
        return path.activation == Activation::relu ? Finish::relu : Finish::leaky;
    }
    float scale() const { return gradient ? 1 : path.scale; }

    // Where channels of the residual and of the gate lie; where pixels lie apart nothing is
    // shuffled.
    Channels rests() const { return pitched(residual_pixel); }
    Channels gates() const { return pitched(gate_pixel); }
    Channels pitched(int64_t pixel) const {
        return pixel == out.pixel() ? out : Channels(out.group, tiles.width, 1, pixel);
    }

    // Whether results are stored past the caches, which only whole lines are.
    bool stores_past() const {
        return streams(path) && (uintptr_t)result % 64 == 0 && out.group % kLanes == 0;
    }
};

template <Finish kFinish>
struct FinishConstant {
    static constexpr Finish value = kFinish;
};

// Calls f with what is done at the end as a constant.
template <typename F>
inline void with_finish(Finish finish, F f) {
    switch (finish) {
        case Finish::none:
            return f(FinishConstant<Finish::none>{});
        case Finish::relu:
            return f(FinishConstant<Finish::relu>{});
        case Finish::leaky:
            return f(FinishConstant<Finish::leaky>{});
        case Finish::relu_gate:
            return f(FinishConstant<Finish::relu_gate>{});
        case Finish::leaky_gate:
            return f(FinishConstant<Finish::leaky_gate>{});
    }
}

// Scale · act(value + shift).
template <Finish kFinish>
inline Vec finished(Vec value, Vec shift, Vec slope, Vec scale) {
    value += shift;
    // So written, what is not a number stays so.
    if (kFinish == Finish::relu) value = value < 0 ? Vec{} : value;
    if (kFinish == Finish::leaky) value = value > 0 ? value : value * slope;
    return value * scale;
}

constexpr bool has_gate(Finish finish) { return finish >= Finish::relu_gate; }

// A gradient at the input of the activation that gave `saved`.
template <Finish kFinish>
inline Vec behind(Vec gradient, Vec saved, Vec slope) {
    constexpr Gate gate = kFinish == Finish::relu_gate ? Gate::relu : Gate::leaky;
    return through<gate>(gradient, saved, 1, slope);
}

// The end of a pass whose result is not shuffled, at a point.
template <Finish kFinish>
class Ending {
public:
    Ending(const Pass& pass, bool past, int64_t point)
        : pass_(pass),
          past_(past),
          point_(point),
          scale_(broadcast(pass.scale())),
          gate_slope_(broadcast(pass.gate_slope)),
          result_(pass.result + point * pass.path.samples * pass.out_sample),
          rest_(pass.residual ? pass.residual + point * pass.residual_point : nullptr),
          gate_(pass.gate ? pass.gate + point * pass.gate_point : nullptr) {}

    // Some channels of pixels, at most a vector.
    struct Column {
        const Ending& end;
        const int64_t offset;
        const int lanes;
        const Vec shift, slope;

        // Stores a sum where it belongs; pixels are counted through all samples.
        void give(Vec value, int64_t pixel) const {
            const Pass& pass = end.pass_;
            value = finished<kFinish>(value, shift, slope, end.scale_);
            if (end.rest_) value += read(end.rest_ + pixel * pass.residual_pixel + offset, lanes);
            if (has_gate(kFinish)) {
                const float* saved = end.gate_ + pixel * pass.gate_pixel + offset;
                value = behind<kFinish>(value, read(saved, lanes), end.gate_slope_);
            }
            float* to = end.result_ + pixel * pass.out.pitch + offset;
            if (end.past_)
                store_past(to, value);
            else if (lanes == kLanes)
                store(to, value);
            else
                store(to, value, lanes);
        }
    };
    Column vector(int64_t offset, int lanes) const {
        const int64_t column = point_ * pass_.out.padded + offset;
        return {*this, offset, lanes, pass_.bias ? read(pass_.bias + column, lanes) : Vec{},
                kFinish == Finish::leaky ? read(pass_.slopes + column, lanes) : Vec{}};
    }

private:
    const Pass& pass_;
    const bool past_;
    const int64_t point_;
    const Vec scale_, gate_slope_;
    float* const result_;
    const float *const rest_, *const gate_;
};

// Every thread its units, pixels or rows, of all samples at all points, with the weights of a point
// made anew by each.
template <typename Way>
void each_thread_alone(const Pass& pass, Gate gate) {
    const PathConvolution& path = pass.path;
    const int64_t of_point = Way::units(pass), size = round_up(Way::size(pass, gate), 16) + 16;
    const Scratch scratch(4 * path.threads * size);
    float* rooms = scratch.floats();

#pragma omp parallel num_threads(path.threads)
    {
        Way way(pass, gate, rooms + thread_id() * size);
        const Range mine = share(path.points * of_point, thread_id(), thread_count());
        each_point(mine, of_point, [&](int64_t point, Range units) {
            way.begin_point(point);
            way.run(point, units);
        });
        finish_stores();
    }
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
