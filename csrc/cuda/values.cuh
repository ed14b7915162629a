#pragma once

#ifndef FAIGFAST_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>
#include <cstring>

namespace faigfast::cuda {

// The same bits as another type of the same size.
template <typename To, typename From>
__device__ inline To bits_as(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

}  // namespace faigfast::cuda
