#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace faigfast {

// An uninitialised, contiguous float32 tensor on the CPU as a DLPack capsule. Its memory returns to
// the cache when its last owner releases it.
pybind11::capsule new_tensor(std::vector<int64_t> shape);

}  // namespace faigfast
