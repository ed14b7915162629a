// Runs attention and its gradients in every instruction set that works here, on buffers of exactly
// their sizes, and compares them with plain loops. Prints what it ran.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/memory.h"

namespace {

using std::vector;
using Floats = vector<float>;

struct Shape {
    int64_t windows, heads, rows, columns, depth, width;
};

// Sizes around vectors and blocks of rows.
const Shape kShapes[] = {{1, 1, 1, 1, 1, 1}, {2, 3, 7, 9, 3, 5}, {2, 2, 50, 33, 17, 16}};

struct Case {
    Shape s;
    Floats q, k, v, bias, mask, gy;
};

Case make(const Shape& s) {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    const int64_t all = s.windows * s.heads;
    Case c{s,
           Floats(all * s.rows * s.depth),
           Floats(all * s.depth * s.columns),
           Floats(all * s.columns * s.width),
           Floats(s.heads * s.rows * s.columns),
           Floats(s.windows * s.rows * s.columns),
           Floats(all * s.rows * s.width)};
    for (Floats* part : {&c.q, &c.k, &c.v, &c.bias, &c.mask, &c.gy})
        for (float& value : *part) value = normal(bits);
    for (size_t i = 1; i < c.mask.size(); i += 3) c.mask[i] = -1e7f;  // as networks mask
    return c;
}

struct Results {
    Floats y, gq, gk, gv, gbias;
};

Results plain(const Case& c) {
    const Shape& s = c.s;
    Results r{Floats(c.gy.size()), Floats(c.q.size()), Floats(c.k.size()), Floats(c.v.size()),
              Floats(c.bias.size())};
    for (int64_t w = 0; w < s.windows; ++w)
        for (int64_t h = 0; h < s.heads; ++h)
            for (int64_t i = 0; i < s.rows; ++i) {
                const int64_t one = w * s.heads + h;
                const float* q = &c.q[(one * s.rows + i) * s.depth];
                const float* gy = &c.gy[(one * s.rows + i) * s.width];
                vector<double> p(s.columns), gp(s.columns);
                double sum = 0, mean = 0;
                for (int64_t j = 0; j < s.columns; ++j) {
                    double score = c.bias[(h * s.rows + i) * s.columns + j] +
                                   c.mask[(w * s.rows + i) * s.columns + j];
                    for (int64_t d = 0; d < s.depth; ++d)
                        score += q[d] * c.k[(one * s.depth + d) * s.columns + j];
                    sum += p[j] = std::exp(score);
                }
                for (int64_t j = 0; j < s.columns; ++j) {
                    p[j] /= sum;
                    for (int64_t e = 0; e < s.width; ++e) {
                        const int64_t v = (one * s.columns + j) * s.width + e;
                        r.y[(one * s.rows + i) * s.width + e] += (float)(p[j] * c.v[v]);
                        gp[j] += (double)gy[e] * c.v[v];
                        r.gv[(one * s.width + e) * s.columns + j] += (float)(p[j] * gy[e]);
                    }
                    mean += p[j] * gp[j];
                }
                for (int64_t j = 0; j < s.columns; ++j) {
                    const double g = p[j] * (gp[j] - mean);
                    r.gbias[(h * s.rows + i) * s.columns + j] += (float)g;
                    for (int64_t d = 0; d < s.depth; ++d) {
                        const int64_t k = (one * s.depth + d) * s.columns + j;
                        r.gq[(one * s.rows + i) * s.depth + d] += (float)(g * c.k[k]);
                        r.gk[k] += (float)(g * q[d]);
                    }
                }
            }
    return r;
}

void compare(const Floats& one, const Floats& other, const char* what, faigfast::Isa isa) {
    for (size_t i = 0; i < one.size(); ++i)
        if (!(std::fabs(one[i] - other[i]) <= 1e-4f)) {
            std::fprintf(stderr, "%s: %s is wrong\n", faigfast::name(isa).c_str(), what);
            std::exit(1);
        }
}

void run(faigfast::Isa isa, const Case& c, const Results& right, int threads) {
    const Shape& s = c.s;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const auto dense = [&](const Floats& part, int64_t rows, int64_t columns) {
        const int64_t one = rows * columns;
        return faigfast::Matrices{part.data(), s.heads * one, one, columns, 1};
    };
    const faigfast::Attention attention{s.windows,
                                        s.heads,
                                        s.rows,
                                        s.columns,
                                        s.depth,
                                        s.width,
                                        dense(c.q, s.rows, s.depth),
                                        dense(c.k, s.depth, s.columns),
                                        dense(c.v, s.columns, s.width),
                                        {c.bias.data(), 0, s.rows * s.columns, s.columns, 1},
                                        {c.mask.data(), s.rows * s.columns, 0, s.columns, 1},
                                        threads};
    Results r{Floats(c.gy.size(), nan), Floats(c.q.size(), nan), Floats(c.k.size(), nan),
              Floats(c.v.size(), nan), Floats(c.bias.size(), nan)};
    Floats stats(2 * s.windows * s.heads * s.rows, nan);
    faigfast::attend(isa, attention, r.y.data(), stats.data());
    faigfast::attend_backward(
        isa, attention,
        {c.gy.data(), stats.data(), r.gq.data(), r.gk.data(), r.gv.data(), r.gbias.data()});
    compare(r.y, right.y, "y", isa);
    compare(r.gq, right.gq, "the gradient of q", isa);
    compare(r.gk, right.gk, "the gradient of k", isa);
    compare(r.gv, right.gv, "the gradient of v", isa);
    compare(r.gbias, right.gbias, "the gradient of the bias", isa);
    faigfast::attend_backward(
        isa, attention,
        {c.gy.data(), stats.data(), r.gq.data(), r.gk.data(), r.gv.data(), nullptr});
    compare(r.gq, right.gq, "the gradient of q without a bias's", isa);
}

}  // namespace

int main() {
    for (faigfast::Isa isa : faigfast::supported()) {
        for (const Shape& shape : kShapes) {
            const Case c = make(shape);
            const Results right = plain(c);
            for (int threads : {1, 2, 5}) run(isa, c, right, threads);
        }
        std::printf("%s\n", faigfast::name(isa).c_str());
    }
    faigfast::free_cached();
    return faigfast::cached() != 0;
}
