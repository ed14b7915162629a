#pragma once

#include <stdint.h>

#include <vector>

namespace faigfast {

// Floating-point control words of the calling thread and of the OpenMP threads of its team.
using ControlWords = std::vector<uint64_t>;

// Flushes denormal numbers, read and written, to 0 in a team of `threads` threads; returns the
// control words from before. Masked attention gives weights exp(-100), which are denormal; torch
// took ten times as long to multiply them. Processors without such a control are left alone.
ControlWords flush_denormals(int threads);

// Sets the control words of such a team.
void set_control_words(const ControlWords& words);

}  // namespace faigfast
