#pragma once

#include "path_convolution.h"

// Gradients of convolutions with stride 1, of the kinds `squares` and `point`, from factors in
// bfloat16. Weights are not packed: w0 and dw are [squares, outputs, 3, 3, inputs], or [outputs,
// inputs]. The namespace `amx` has them for processors with AMX; the others compute the same
// products in plain C++. FAIGFAST_AMX says that the compiler has it.

namespace faigfast {

#define FAIGFAST_DECLARE(isa)                                          \
    namespace isa {                                                    \
    void bf16_backward(const PathConvolution&, const BackwardArrays&); \
    }
FAIGFAST_EACH_ISA(FAIGFAST_DECLARE)
#ifdef FAIGFAST_AMX
FAIGFAST_DECLARE(amx)
#endif
#undef FAIGFAST_DECLARE

// Whether this processor and its operating system run AMX; asks for the permission to.
bool amx_runs();

}  // namespace faigfast
