// Activations at points of the line, with slopes averaged over the cells of the points.

#include "averaged_activation.h"

#include "common/shares.h"
#include "common/vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Elements of one point that a thread takes at once: those of all points stay in its caches.
constexpr int64_t kPiece = 1 << 10;

inline Vec positive(Vec z) { return z > 0 ? z : Vec{}; }

// The share of a straight way from z to `end` on which it is positive.
inline Vec positive_share(Vec z, Vec end) {
    const Vec way = end - z;
    const Vec here = z > 0 ? Vec{} + 1 : Vec{};
    return way == 0 ? here : (positive(end) - positive(z)) / way;
}

struct Cell {
    const float *before, *after;  // z at the neighbours
    Vec to_first, to_last, share_before;
};

inline Vec mean_slope(Vec z, Vec before, Vec after, const Cell& cell, Vec slope) {
    const Vec first = positive_share(z, z + cell.to_first * (before - z));
    const Vec last = positive_share(z, z + cell.to_last * (after - z));
    const Vec share = last + cell.share_before * (first - last);
    return slope + (1 - slope) * share;
}

// Computes elements [start, start + count) of all points.
void run_piece(const AveragedActivation& given, int64_t start, int64_t count) {
    const Vec slope = broadcast(given.slope);
    for (int64_t p = 0; p < given.points; ++p) {
        const int64_t* neighbours = given.neighbours + 2 * p;
        const float* c = given.coefficients + 3 * p;
        const Cell cell{given.z + neighbours[0] * given.elements + start,
                        given.z + neighbours[1] * given.elements + start, broadcast(c[0]),
                        broadcast(c[1]), broadcast(c[2])};
        const float* z = given.z + p * given.elements + start;
        float* factors = given.factors + p * given.elements + start;
        int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes)
            store(factors + i, mean_slope(load(z + i), load(cell.before + i), load(cell.after + i),
                                          cell, slope));
        if (const int rest = (int)(count - i))
            store(factors + i,
                  mean_slope(load(z + i, rest), load(cell.before + i, rest),
                             load(cell.after + i, rest), cell, slope),
                  rest);
    }
    // Only now, since y may be z.
    for (int64_t p = 0; p < given.points; ++p) {
        const float* z = given.z + p * given.elements + start;
        float* y = given.y + p * given.elements + start;
        const auto activated = [&](Vec z) { return z > 0 ? z : z * slope; };
        int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) store(y + i, activated(load(z + i)));
        if (const int rest = (int)(count - i)) store(y + i, activated(load(z + i, rest)), rest);
    }
}

}  // namespace

void averaged_activation(const AveragedActivation& given) {
    const Shares shares((given.elements + kPiece - 1) / kPiece, 1, given.threads);
    run_in_parallel(given.threads, [&] {
        shares.each(thread_id(), [&](Range pieces) {
            for (int64_t piece = pieces.begin; piece < pieces.end; ++piece)
                run_piece(given, piece * kPiece, least(kPiece, given.elements - piece * kPiece));
        });
    });
}

}  // namespace faigfast::FAIGFAST_ISA
