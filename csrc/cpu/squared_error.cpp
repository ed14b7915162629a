// Squared errors of images [p, n, e] at points of the line against [n, e], and their gradient.

#include "squared_error.h"

#include "common/parallel.h"
#include "common/vector.h"
#include "memory.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Elements whose squares are summed in float, lane by lane; sums of pieces are added in double.
constexpr int64_t kPiece = 1 << 10;

struct Piece {
    double sum;
    float most;
};

// The larger of two, or NaN.
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

inline Piece add_up(const float* y, const float* gt, int64_t count) {
    Vec sum = {}, most = {};
    const auto take = [&](Vec difference) {
        sum += difference * difference;
        const Vec size = difference < 0 ? -difference : difference;
        most = size > most ? size : most;
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) take(load(y + i) - load(gt + i));
    if (i < count) take(load(y + i, (int)(count - i)) - load(gt + i, (int)(count - i)));
    Piece piece{0, 0};
    for (int l = 0; l < kLanes; ++l) {
        piece.sum += sum[l];
        piece.most = larger(most[l], piece.most);
    }
    if (piece.sum != piece.sum) piece.most = (float)piece.sum;
    return piece;
}

}  // namespace

void squared_error(const float* y, const float* gt, float* losses, float* most, int64_t p,
                   int64_t n, int64_t e, int threads) {
    const int64_t pieces = (e + kPiece - 1) / kPiece, total = p * n * pieces;
    const Scratch scratch(sizeof(Piece) * (total + 1));
    Piece* parts = reinterpret_cast<Piece*>(scratch.floats());

#pragma omp parallel num_threads(threads)
    {
        const Range mine = share(total, thread_id(), thread_count());
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const int64_t sample = i / pieces, first = i % pieces * kPiece;
            parts[i] = add_up(y + sample * e + first, gt + sample % n * e + first,
                              least(kPiece, e - first));
        }
    }
    for (int64_t sample = 0; sample < p * n; ++sample) {
        Piece all{0, 0};
        for (const Piece* piece = parts + sample * pieces; piece < parts + (sample + 1) * pieces;
             ++piece) {
            all.sum += piece->sum;
            all.most = larger(piece->most, all.most);
        }
        losses[sample] = (float)all.sum;
        most[sample] = all.most;
    }
}

void squared_error_backward(const float* y, const float* gt, const float* weights, float* gy,
                            int64_t p, int64_t n, int64_t e, int threads) {
    const int64_t pieces = (e + kPiece - 1) / kPiece, total = p * n * pieces;

#pragma omp parallel num_threads(threads)
    {
        const Range mine = share(total, thread_id(), thread_count());
        for (int64_t piece = mine.begin; piece < mine.end; ++piece) {
            const int64_t sample = piece / pieces, first = piece % pieces * kPiece;
            const int64_t count = least(kPiece, e - first), at = sample * e + first;
            const float *value = y + at, *target = gt + sample % n * e + first;
            const Vec weight = broadcast(2 * weights[sample]);
            int64_t i = 0;
            for (; i + kLanes <= count; i += kLanes)
                store(gy + at + i, weight * (load(value + i) - load(target + i)));
            const int rest = (int)(count - i);
            if (rest)
                store(gy + at + i, weight * (load(value + i, rest) - load(target + i, rest)), rest);
        }
    }
}

}  // namespace faigfast::FAIGFAST_ISA
