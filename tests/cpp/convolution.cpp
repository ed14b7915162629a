// Runs the path convolution and its gradients in every instruction set that works here, on buffers
// of exactly their sizes, and compares them with plain loops in double. Prints what it ran.
// Arguments name instruction sets to leave out: valgrind knows no AVX-512.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/memory.h"
#include "../../csrc/cpu/streaming.h"
#include "convolution_cases.h"

namespace {

using convolution_cases::Case;
using convolution_cases::kCases;
using faigfast::Activation;
using faigfast::Kind;
using std::vector;

constexpr float kBeforeSlope = 0.3f;

struct Problem {
    Case c;
    Activation before;  // its output is x
    int64_t samples, y_width, y_height, y_channels;
    vector<float> alpha, w0, dw, b0, db, s0, ds, x, more, residual, gy;

    Problem(const Case& given, Activation before)
        : c(given),
          before(before),
          samples(c.images * c.rest),
          y_width(c.width * c.shuffle),
          y_height(c.height * c.shuffle),
          y_channels(c.outputs / (c.shuffle * c.shuffle)) {
        std::mt19937 bits(1);
        std::normal_distribution<float> normal;
        const auto fill = [&](int64_t size) {
            vector<float> values(size);
            for (float& value : values) value = normal(bits);
            return values;
        };
        const int64_t pixels = samples * c.height * c.width;
        const int64_t x_pixels = samples * c.x_height() * c.x_width();
        alpha = fill(c.points), dw = fill(c.weights());
        w0 = fill(dw.size());
        b0 = fill(c.outputs), db = fill(c.outputs), s0 = fill(c.outputs), ds = fill(c.outputs);
        x = fill((c.shared_x ? 1 : c.points) * x_pixels * c.inputs);
        more = fill(c.points * x_pixels * c.inputs);
        residual = fill(pixels * c.outputs), gy = fill(c.points * pixels * c.outputs);
    }

    // Index of channel o of pixel (y, x) in the layer's output, which may be shuffled.
    int64_t at(int64_t p, int64_t m, int64_t y, int64_t x, int64_t o) const {
        const int64_t r = c.shuffle, g = o % (r * r);
        return (((p * samples + m) * y_height + y * r + g / r) * y_width + x * r + g % r) *
                   y_channels +
               o / (r * r);
    }
    int64_t x_at(int64_t p, int64_t m, int64_t row, int64_t column, int64_t i) const {
        return (((c.shared_x ? 0 : p * samples) + m) * c.x_height() * c.x_width() +
                row * c.x_width() + column) *
                   c.inputs +
               i;
    }
    float before_slope() const {
        return before == Activation::none ? 1 : before == Activation::relu ? 0 : kBeforeSlope;
    }
    double on(const vector<float>& start, const vector<float>& delta, int64_t p, int64_t i) const {
        return start[i] + (double)alpha[p] * delta[i];
    }
};

struct Results {
    vector<double> z, y, gx, gw, gb, gs;
};

// The row, or column, of x that tap t of row or column `at` of y reads; negative where none.
int64_t under(const Case& c, int64_t at, int64_t t, bool down) {
    const faigfast::Kernel& k = c.kernel;
    const int64_t pad = down ? k.pad_y : k.pad_x;
    if (k.kind == Kind::squares)
        return at - pad + (down ? t / 9 / k.across * 3 + t % 9 / 3 : t / 9 % k.across * 3 + t % 3);
    const int64_t tap = down ? t / k.across : t % k.across;
    if (k.kind != Kind::direct) return at - pad + tap;
    const int64_t stride = down ? k.stride_y : k.stride_x;
    const int64_t shift = tap * (down ? k.dilation_y : k.dilation_x) - pad;
    if (!k.transposed) return at * stride + shift;
    return (at - shift) % stride ? -1 : (at - shift) / stride;
}

// Calls visit(i, w, gw) for the inputs i of an output at tap t: indices of weight and gradient.
template <typename Visit>
void visit_inputs(const Case& c, int64_t o, int64_t t, Visit visit) {
    const int64_t few = c.inputs / c.groups(), many = c.outputs / c.groups(), group = o / many;
    for (int64_t n = 0; n < few; ++n) {
        const int64_t i = group * few + n;
        if (c.kernel.kind == Kind::squares) {
            const int64_t row = t / 9 * c.outputs + o;
            visit(i, (row * 9 + t % 9) * c.inputs + i, (row * c.inputs + i) * 9 + t % 9);
        } else if (c.kernel.kind == Kind::depthwise) {
            visit(i, t * c.outputs + o, o * c.kernel.taps() + t);
        } else {
            const int64_t w = c.kernel.transposed ? (t * c.inputs + i) * many + o % many
                                                  : (t * c.outputs + o) * few + n;
            visit(i, w, w);
        }
    }
}

Results plain(const Problem& q) {
    const Case& c = q.c;
    Results r;
    r.z.resize(q.gy.size()), r.y.resize(q.gy.size());
    r.gx.assign(q.more.begin(), q.more.end());
    r.gw.resize(c.images * q.w0.size());
    r.gb.resize(c.images * c.outputs), r.gs.resize(c.images * c.outputs);
    for (int64_t p = 0; p < c.points; ++p)
        for (int64_t m = 0; m < q.samples; ++m)
            for (int64_t y = 0; y < c.height; ++y)
                for (int64_t x = 0; x < c.width; ++x)
                    for (int64_t o = 0; o < c.outputs; ++o) {
                        const int64_t here = q.at(p, m, y, x, o), n = m / c.rest;
                        double z = q.on(q.b0, q.db, p, o);
                        // Calls visit(row, column, i, w, gw) for every tap: the pixel and channel
                        // it reads, and the indices of its weight and gradient.
                        const auto each = [&](auto visit) {
                            for (int64_t t = 0; t < c.kernel.taps(); ++t) {
                                const int64_t row = under(c, y, t, true);
                                const int64_t column = under(c, x, t, false);
                                if (row < 0 || column < 0 || row >= c.x_height() ||
                                    column >= c.x_width())
                                    continue;
                                visit_inputs(c, o, t, [&](int64_t i, int64_t w, int64_t gw) {
                                    visit(row, column, i, w, gw);
                                });
                            }
                        };
                        each([&](int64_t row, int64_t column, int64_t i, int64_t w, int64_t) {
                            z += q.on(q.w0, q.dw, p, w) * q.x[q.x_at(p, m, row, column, i)];
                        });
                        const double slope = c.activation == Activation::none ? 1
                                             : c.activation == Activation::relu
                                                 ? 0
                                                 : q.on(q.s0, q.ds, p, o);
                        const double factor = z > 0 ? 1 : slope;
                        const int64_t first = q.at(0, m, y, x, o);
                        r.z[here] = z;
                        r.y[here] = c.scale * factor * z + (c.residual ? q.residual[first] : 0);
                        const double g = (double)c.scale * q.gy[here];
                        r.gb[n * c.outputs + o] += g * factor;
                        if (z <= 0) r.gs[n * c.outputs + o] += g * z;
                        each([&](int64_t row, int64_t column, int64_t i, int64_t w, int64_t gw) {
                            const int64_t to =
                                (((p * q.samples + m) * c.x_height() + row) * c.x_width() +
                                 column) *
                                    c.inputs +
                                i;
                            r.gx[to] += g * factor * q.on(q.w0, q.dw, p, w);
                            r.gw[n * q.w0.size() + gw] +=
                                g * factor * q.x[q.x_at(p, m, row, column, i)];
                        });
                    }
    // The mask of the activation whose output is x.
    const int64_t of_point = q.samples * c.x_height() * c.x_width() * c.inputs;
    for (int64_t i = 0; i < c.points * of_point; ++i)
        if (q.x[c.shared_x ? i % of_point : i] <= 0) r.gx[i] *= q.before_slope();
    return r;
}

// Allocates on cache lines.
template <typename T>
struct OnLine {
    using value_type = T;
    OnLine() = default;
    template <typename U>
    OnLine(const OnLine<U>&) {}
    T* allocate(size_t count) {
        void* start = nullptr;
        if (posix_memalign(&start, 64, count * sizeof(T))) throw std::bad_alloc();
        return static_cast<T*>(start);
    }
    void deallocate(T* start, size_t) { std::free(start); }
    bool operator==(const OnLine&) const { return true; }
    bool operator!=(const OnLine&) const { return false; }
};
using Lines = vector<float, OnLine<float>>;

void compare(const char* name, const std::string& isa, size_t number, int threads,
             const Lines& actual, const vector<double>& expected, double bound = 1e-5) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(actual[i] - expected[i], 2);
        size += expected[i] * expected[i];
    }
    // Also fails for NaN.
    if (std::sqrt(difference) <= bound * std::sqrt(size)) return;
    std::fprintf(stderr, "%s, case %zu, %d threads: %s is off by %.1e of %.1e\n", isa.c_str(),
                 number, threads, name, std::sqrt(difference), std::sqrt(size));
    std::exit(1);
}

void check(faigfast::Isa isa, size_t number, const Problem& q, const Results& expected,
           int threads) {
    const Case& c = q.c;
    const bool slopes = c.activation == Activation::leaky;
    const auto packed = [&](const vector<float>& w, bool input_gradient) {
        if (c.kernel.kind != Kind::squares) return w;
        const faigfast::Packing packing{c.inputs, c.outputs, c.shuffle, input_gradient,
                                        c.kernel.squares()};
        vector<float> result(faigfast::packed_size(isa, packing));
        if (result.empty()) return w;  // read in place
        faigfast::pack(isa, packing, w.data(), result.data(), threads);
        return result;
    };
    const vector<float> w0 = packed(q.w0, false), dw = packed(q.dw, false);
    const vector<float> gradient_w0 = packed(q.w0, true), gradient_dw = packed(q.dw, true);
    faigfast::PathConvolution path{c.points,
                                   q.samples,
                                   c.height,
                                   c.width,
                                   c.inputs,
                                   c.outputs,
                                   c.x_height(),
                                   c.x_width(),
                                   c.kernel,
                                   c.shuffle,
                                   q.alpha.data(),
                                   w0.data(),
                                   dw.data(),
                                   q.b0.data(),
                                   q.db.data(),
                                   slopes ? q.s0.data() : nullptr,
                                   slopes ? q.ds.data() : nullptr,
                                   false,
                                   c.activation,
                                   0,
                                   c.scale,
                                   false,
                                   threads};
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const vector<float> saved(expected.z.begin(), expected.z.end());
    const auto room = [&](const vector<double>& like) { return Lines(like.size(), nan); };
    Lines y = room(expected.y), gx = room(expected.gx), gw = room(expected.gw);
    Lines gb = room(expected.gb), gs = room(expected.gs);
    // In every second case pixels lie further apart than their channels.
    const int64_t pitch = c.inputs + number % 2 * 3;
    const auto apart = [&](const vector<float>& from) {
        vector<float> wide(from.size() / c.inputs * pitch, nan);
        for (size_t i = 0; i < from.size(); ++i)
            wide[i / c.inputs * pitch + i % c.inputs] = from[i];
        return wide;
    };
    const vector<float> x = apart(q.x), more = apart(q.more);
    const int64_t x_point = c.shared_x ? 0 : x.size() / c.points;
    convolve(isa, path,
             {x.data(), x_point, pitch, c.residual ? q.residual.data() : nullptr, 0, y.data()});
    path.w0 = gradient_w0.data(), path.dw = gradient_dw.data();
    convolve_backward(
        isa, path,
        {q.gy.data(), c.activation == Activation::none ? nullptr : saved.data(), x.data(), x_point,
         pitch, c.images, more.data(), pitch, q.before, kBeforeSlope, nullptr, gx.data(), gw.data(),
         gb.data(), slopes ? gs.data() : nullptr});
    const std::string name = faigfast::name(isa);
    compare("y", name, number, threads, y, expected.y);
    compare("gx", name, number, threads, gx, expected.gx);
    compare("gw", name, number, threads, gw, expected.gw);
    compare("gb", name, number, threads, gb, expected.gb);
    if (slopes) compare("gs", name, number, threads, gs, expected.gs);
    if (c.kernel.kind == Kind::squares || c.kernel.kind == Kind::point) {
        faigfast::PathConvolution narrow = path;
        narrow.bf16 = true, narrow.w0 = q.w0.data(), narrow.dw = q.dw.data();
        gx = room(expected.gx), gw = room(expected.gw), gb = room(expected.gb);
        gs = room(expected.gs);
        convolve_backward(
            isa, narrow,
            {q.gy.data(), c.activation == Activation::none ? nullptr : saved.data(), x.data(),
             x_point, pitch, c.images, more.data(), pitch, q.before, kBeforeSlope, nullptr,
             gx.data(), gw.data(), gb.data(), slopes ? gs.data() : nullptr});
        // Factors of 8 bits; sums of single gradients, and slopes, are not rounded.
        compare("gx in bf16", name, number, threads, gx, expected.gx, 5e-3);
        compare("gw in bf16", name, number, threads, gw, expected.gw, 5e-3);
        compare("gb in bf16", name, number, threads, gb, expected.gb);
        if (slopes) compare("gs in bf16", name, number, threads, gs, expected.gs);
    }
    if (slopes) return;
    // Again, with the derivatives of both activations as factors.
    vector<float> factors(saved.size()), before(expected.gx.size());
    for (size_t i = 0; i < factors.size(); ++i)
        factors[i] = saved[i] > 0 || c.activation == Activation::none ? 1 : 0;
    for (size_t i = 0; i < before.size(); ++i)
        before[i] = q.x[i % q.x.size()] > 0 ? 1 : q.before_slope();
    path.activation = Activation::factor;
    gx = room(expected.gx), gw = room(expected.gw), gb = room(expected.gb);
    convolve_backward(
        isa, path,
        {q.gy.data(), factors.data(), x.data(), x_point, pitch, c.images, more.data(), pitch,
         Activation::factor, 0, before.data(), gx.data(), gw.data(), gb.data(), nullptr});
    compare("gx by factors", name, number, threads, gx, expected.gx);
    compare("gw by factors", name, number, threads, gw, expected.gw);
    compare("gb by factors", name, number, threads, gb, expected.gb);
}

}  // namespace

int main(int count, char** arguments) {
    const vector<std::string> left_out(arguments + 1, arguments + count);
    for (faigfast::Isa isa : faigfast::supported()) {
        if (std::count(left_out.begin(), left_out.end(), faigfast::name(isa))) continue;
        size_t number = 0;
        for (const Case& c : kCases) {
            const Activation kinds[] = {Activation::none, Activation::relu, Activation::leaky};
            const Problem problem(c, kinds[number % 3]);
            const Results expected = plain(problem);
            faigfast::set_streaming(number / 2 % 2 == 0, 1);
            for (int threads : {1, 2, 5}) check(isa, number, problem, expected, threads);
            // Python threads may call at the same time.
            std::thread other([&] { check(isa, number, problem, expected, 2); });
            check(isa, number, problem, expected, 2);
            other.join();
            ++number;
        }
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
    faigfast::free_cached();
    return faigfast::cached() != 0;
}
