#pragma once

#include <stdint.h>

#include <vector>

namespace faigfast {

// Floating-point control words of the calling thread and of the OpenMP threads of its team.
using ControlWords = std::vector<uint64_t>;

// Read and write denormal numbers as 0 in a team of so many threads, and return what was set
// before. Masked attention gives weights exp(-100), which are denormal; torch's products with them
// took ten times as long. Nothing happens on processors without that control.
ControlWords flush_denormals(int threads);

// Set the control words of such a team.
void set_control_words(const ControlWords& words);

}  // namespace faigfast
