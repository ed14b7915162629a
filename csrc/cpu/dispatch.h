#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention.h"
#include "path_convolution.h"

namespace faigfast {

// Lowest first; the last one that this processor and its operating system support is used.
enum class Isa { portable, avx2, avx512 };

std::string name(Isa isa);

// Compiled into this build, and of these the ones that can run here.
std::vector<Isa> compiled();
std::vector<Isa> supported();

// The best supported one, or what the environment variable FAIGFAST_ISA asks for; read every time.
// Throws std::invalid_argument when that is unknown or cannot run here.
Isa choose();

// total [n, f, k], delta [f, k] -> scores [n, f]; contiguous, of any alignment.
template <typename T>
void score_reduction(Isa isa, const T* total, const T* delta, T* scores, int64_t n, int64_t f,
                     int64_t k, int threads);

// y [p, n, e], gt [n, e] -> losses and largest differences [p, n]; the gradient gy of losses that
// weigh `weights` [p, n]. Contiguous, of any alignment.
void squared_error(Isa isa, const float* y, const float* gt, float* losses, float* most, int64_t p,
                   int64_t n, int64_t e, int threads);
void squared_error_backward(Isa isa, const float* y, const float* gt, const float* weights,
                            float* gy, int64_t p, int64_t n, int64_t e, int threads);

// As in attention.h; sizes are positive.
void attend(Isa isa, const Attention& attention, float* y, float* stats);
void attend_backward(Isa isa, const Attention& attention, const AttentionGradients& gradients);

// Multiply-adds in registers alone; returns how many operations they were.
int64_t multiply_add(Isa isa, int64_t rounds, int threads, float* result);

// Floats that `pack` writes, from weights w [squares, outputs, 3, 3, inputs].
int64_t packed_size(Isa isa, const Packing& packing);
void pack(Isa isa, const Packing& packing, const float* w, float* packed, int threads);

// Each sees to what is asked for of `arrays`; sizes are positive.
void convolve(Isa isa, const PathConvolution& path, const ForwardArrays& arrays);
void convolve_backward(Isa isa, const PathConvolution& path, const BackwardArrays& arrays);

}  // namespace faigfast
