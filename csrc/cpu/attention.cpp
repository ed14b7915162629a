// Attention, one head of one window at a time: its keys and values are packed, then every block of
// its rows goes through all steps while it stays in the L1 cache. The backward computes scores
// again, which costs less than reading them from memory.

#include "attention.h"

#include <cmath>
#include <initializer_list>

#include "common/exponential.h"
#include "common/gemm.h"
#include "common/parallel.h"
#include "common/vector.h"
#include "memory.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

constexpr int64_t kBlock = 8 * kRows;  // rows of scores computed together

// Floats between packed rows: an odd number of vectors, so that a column spreads over the sets of
// the L1 cache.
inline int64_t spaced(int64_t columns) { return round_up(columns, 2 * kLanes) + kLanes; }

// Floats between packed rows that loops read in order.
inline int64_t dense(int64_t columns) { return round_up(columns, kLanes); }

// C = A·B or C += A·B of [rows, columns]; B and C have room for whole vectors.
template <bool kAdd>
void multiply(Operands o, int64_t rows, int64_t columns) {
    for (int64_t c = 0; c < columns; c += kPanel, o.b += kPanel, o.c += kPanel)
        multiply_panel<kAdd>(o, rows, least(kColumns, (columns - c + kLanes - 1) / kLanes));
}

// Copies [rows, columns] of any strides to rows `to_row` floats apart, padded with zeros.
inline void pack(const float* from, int64_t row, int64_t column, int64_t rows, int64_t columns,
                 float* to, int64_t to_row) {
    for (int64_t i = 0; i < rows; ++i, from += row, to += to_row) {
        for (int64_t j = 0; j < columns; ++j) to[j] = from[j * column];
        for (int64_t j = columns; j < to_row; ++j) to[j] = 0;
    }
}

// Adds a dense row to a row of whole vectors.
inline void add(const float* part, float* row, int64_t columns) {
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) store(row + c, load(row + c) + load(part + c));
    const int rest = (int)(columns - c);
    if (rest) store(row + c, load(row + c) + load(part + c, rest));
}

inline float largest(const float* row, int64_t columns) {
    Vec most = load(row);
    for (int64_t c = kLanes; c < columns; c += kLanes) {
        const Vec value = load(row + c);
        most = value > most ? value : most;
    }
    float all = most[0];
    for (int l = 1; l < kLanes; ++l) all = most[l] > all ? most[l] : all;
    return all;
}

inline float sum_of(Vec value) {
    float sum = 0;
    for (int l = 0; l < kLanes; ++l) sum += value[l];
    return sum;
}

// Hands out pieces of one thread's scratch memory.
class Arena {
public:
    explicit Arena(float* start) : next_(start) {}
    float* take(int64_t floats) {
        float* part = next_;
        next_ += round_up(floats, kLanes);
        return part;
    }

private:
    float* next_;
};

// One head of one window.
struct Head {
    const Attention& a;
    int64_t window, head;

    Head(const Attention& a, int64_t task)
        // Windows vary fastest, so that the bias of a head stays in the L2 cache.
        : a(a), window(task % a.windows), head(task / a.windows) {}

    int64_t matrix() const { return window * a.heads + head; }
    int64_t count(int64_t row) const { return least(kBlock, a.rows - row); }

    // Scores [count, spaced(columns)] of a block of rows; columns of padding score −∞.
    void score(int64_t row, const float* k, float* scores) const {
        const int64_t stride = spaced(a.columns), count = this->count(row);
        const float* q = a.q.of(window, head) + row * a.q.row;
        multiply<false>({q, a.q.row, a.q.column, k, stride, scores, stride, a.depth}, count,
                        a.columns);
        for (int64_t i = 0; i < count; ++i) {
            float* to = scores + i * stride;
            for (const Matrices* part : {&a.bias, &a.mask})
                if (part->data) add(part->of(window, head) + (row + i) * part->row, to, a.columns);
            for (int64_t c = a.columns; c < dense(a.columns); ++c) to[c] = -INFINITY;
        }
    }
};

}  // namespace

void attend(const Attention& a, float* y, float* stats) {
    const int64_t stride = spaced(a.columns), wide = dense(a.width);
    const int64_t each =
        round_up(a.depth * stride, kLanes) + a.columns * wide + kBlock * stride + kBlock * wide;
    const Scratch scratch(sizeof(float) * each * a.threads);

#pragma omp parallel num_threads(a.threads)
    {
        Arena arena(scratch.floats() + each * thread_id());
        float *k = arena.take(a.depth * stride), *v = arena.take(a.columns * wide);
        float *weights = arena.take(kBlock * stride), *sums = arena.take(kBlock * wide);
        const Range mine = share(a.windows * a.heads, thread_id(), thread_count());
        for (int64_t task = mine.begin; task < mine.end; ++task) {
            const Head one(a, task);
            const float *from_k = a.k.of(one.window, one.head),
                        *from_v = a.v.of(one.window, one.head);
            pack(from_k, a.k.row, a.k.column, a.depth, a.columns, k, stride);
            pack(from_v, a.v.row, a.v.column, a.columns, a.width, v, wide);
            for (int64_t row = 0; row < a.rows; row += kBlock) {
                one.score(row, k, weights);
                const int64_t count = one.count(row), at = one.matrix() * a.rows + row;
                for (int64_t i = 0; i < count; ++i) {
                    float* to = weights + i * stride;
                    const float most = largest(to, a.columns);
                    Vec sum = {};
                    for (int64_t c = 0; c < a.columns; c += kLanes) {
                        const Vec weight = exponential(load(to + c) - most);
                        sum += weight;
                        store(to + c, weight);
                    }
                    stats[2 * (at + i)] = most;
                    stats[2 * (at + i) + 1] = 1 / sum_of(sum);
                }
                multiply<false>({weights, stride, 1, v, wide, sums, wide, a.columns}, count,
                                a.width);
                for (int64_t i = 0; i < count; ++i)
                    for (int64_t c = 0; c < a.width; ++c)
                        y[(at + i) * a.width + c] = sums[i * wide + c] * stats[2 * (at + i) + 1];
            }
        }
    }
}

void attend_backward(const Attention& a, const AttentionGradients& g) {
    const int64_t stride = spaced(a.columns), deep = dense(a.depth);
    const int64_t each = 2 * round_up(a.depth * stride, kLanes) +
                         2 * round_up(a.width * stride, kLanes) + a.columns * deep +
                         2 * kBlock * stride + kBlock * deep;
    const Scratch scratch(sizeof(float) * each * a.threads);
    // One thread adds the bias's gradient over all windows of a head.
    const int64_t together = g.gbias ? a.windows : 1;

#pragma omp parallel num_threads(a.threads)
    {
        Arena arena(scratch.floats() + each * thread_id());
        float *k = arena.take(a.depth * stride), *gk = arena.take(a.depth * stride);
        float *v = arena.take(a.width * stride), *gv = arena.take(a.width * stride);
        float* k_transposed = arena.take(a.columns * deep);
        float *weights = arena.take(kBlock * stride), *gradients = arena.take(kBlock * stride);
        float* sums = arena.take(kBlock * deep);
        const Range mine = share(a.windows * a.heads / together, thread_id(), thread_count());
        for (int64_t task = mine.begin * together; task < mine.end * together; ++task) {
            const Head one(a, task);
            const float* from_k = a.k.of(one.window, one.head);
            pack(from_k, a.k.row, a.k.column, a.depth, a.columns, k, stride);
            pack(from_k, a.k.column, a.k.row, a.columns, a.depth, k_transposed, deep);
            pack(a.v.of(one.window, one.head), a.v.column, a.v.row, a.width, a.columns, v, stride);
            for (int64_t n = 0; n < a.depth * stride; ++n) gk[n] = 0;
            for (int64_t n = 0; n < a.width * stride; ++n) gv[n] = 0;
            for (int64_t row = 0; row < a.rows; row += kBlock) {
                const int64_t count = one.count(row), at = one.matrix() * a.rows + row;
                const float *gy = g.gy + at * a.width, *stats = g.stats + 2 * at;
                const float* q = a.q.of(one.window, one.head) + row * a.q.row;
                one.score(row, k, weights);
                multiply<false>({gy, a.width, 1, v, stride, gradients, stride, a.width}, count,
                                a.columns);
                for (int64_t i = 0; i < count; ++i) {
                    float *weight = weights + i * stride, *gradient = gradients + i * stride;
                    Vec sum = {};
                    for (int64_t c = 0; c < a.columns; c += kLanes) {
                        const Vec value =
                            exponential(load(weight + c) - stats[2 * i]) * stats[2 * i + 1];
                        sum += value * load(gradient + c);
                        store(weight + c, value);
                    }
                    const float mean = sum_of(sum);
                    for (int64_t c = 0; c < a.columns; c += kLanes)
                        store(gradient + c, load(weight + c) * (load(gradient + c) - mean));
                    if (!g.gbias) continue;
                    float* gbias = g.gbias + (one.head * a.rows + row + i) * a.columns;
                    for (int64_t c = 0; c < a.columns; ++c)
                        gbias[c] = (one.window ? gbias[c] : 0) + gradient[c];
                }
                multiply<false>({gradients, stride, 1, k_transposed, deep, sums, deep, a.columns},
                                count, a.depth);
                for (int64_t i = 0; i < count; ++i)
                    copy(sums + i * deep, g.gq + (at + i) * a.depth, a.depth);
                multiply<true>({q, a.q.column, a.q.row, gradients, stride, gk, stride, count},
                               a.depth, a.columns);
                multiply<true>({gy, 1, a.width, weights, stride, gv, stride, count}, a.width,
                               a.columns);
            }
            for (int64_t d = 0; d < a.depth; ++d)
                copy(gk + d * stride, g.gk + (one.matrix() * a.depth + d) * a.columns, a.columns);
            for (int64_t d = 0; d < a.width; ++d)
                copy(gv + d * stride, g.gv + (one.matrix() * a.width + d) * a.columns, a.columns);
        }
    }
}

}  // namespace faigfast::FAIGFAST_ISA
