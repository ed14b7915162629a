#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace faigfast {

// An uninitialised, contiguous float32 tensor on the CPU as a DLPack capsule. Its memory goes back
// to the cache when the last one who holds it lets go.
pybind11::capsule new_tensor(std::vector<int64_t> shape);

}  // namespace faigfast
