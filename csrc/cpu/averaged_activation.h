#pragma once

#include <stdint.h>

#include "isas.h"

namespace faigfast {

// act(z) at points of the line, and in place of act′(z) the mean of act′ over each point's cell.
// Along the line z runs straight from point to point, and on beyond the first and the last.
struct AveragedActivation {
    int64_t points, elements;
    const float* z;             // [points, elements]
    float* y;                   // act(z); may be z itself
    float* factors;             // the means
    const int64_t* neighbours;  // [points, 2], the points that give z at both ends of the cell
    // [points, 3]: z at an end is z + c · (z of its neighbour − z), with c of the first and of the
    // last end; the share of the cell that lies before the point.
    const float* coefficients;
    float slope;  // act(z) is z where it is positive, and slope · z elsewhere
    int threads;
};

}  // namespace faigfast

#define FAIGFAST_DECLARE(isa)                                  \
    namespace faigfast::isa {                                  \
    void averaged_activation(const AveragedActivation& given); \
    }

FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#undef FAIGFAST_DECLARE
