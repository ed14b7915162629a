#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention.h"
#include "averaged_activation.h"
#include "one_channel.h"
#include "path_convolution.h"

namespace faigfast {

// In ascending order; the last one that this processor and its operating system support runs.
enum class Isa { portable, avx2, avx512 };

std::string name(Isa isa);

// The instruction sets compiled into this build, and the subset that runs here.
std::vector<Isa> compiled();
std::vector<Isa> supported();

// The best supported one, or the one that the environment variable FAIGFAST_ISA names, read at
// every call. Throws std::invalid_argument where that name is unknown or cannot run here.
Isa choose();

// total [n, f, k], delta [f, k] -> scores [n, f]; contiguous, of any alignment.
template <typename T>
void score_reduction(Isa isa, const T* total, const T* delta, T* scores, int64_t n, int64_t f,
                     int64_t k, int threads);

// y [p, n, e], gt [n, e] -> losses and largest differences [p, n]; gy, the gradient of Σ weights ·
// losses, with weights [p, n]. Contiguous, of any alignment.
void squared_error(Isa isa, const float* y, const float* gt, float* losses, float* most, int64_t p,
                   int64_t n, int64_t e, int threads);
void squared_error_backward(Isa isa, const float* y, const float* gt, const float* weights,
                            float* gy, int64_t p, int64_t n, int64_t e, int threads);

// As in attention.h; sizes are positive.
void attend(Isa isa, const Attention& attention, float* y, float* stats);
void attend_backward(Isa isa, const Attention& attention, const AttentionGradients& gradients);

// As in averaged_activation.h; sizes are positive.
void averaged_activation(Isa isa, const AveragedActivation& given);

// As in one_channel.h; sizes are positive.
void one_channel(Isa isa, const OneChannel& layer);

// Multiply-adds in registers alone; returns the number of operations.
int64_t multiply_add(Isa isa, int64_t rounds, int threads, float* result);

// Floats that `pack` writes, from weights w [squares, outputs, 3, 3, inputs].
int64_t packed_size(Isa isa, const Packing& packing);
void pack(Isa isa, const Packing& packing, const float* w, float* packed, int threads);

// Computes whatever `arrays` has an address for; sizes are positive.
void convolve(Isa isa, const PathConvolution& path, const ForwardArrays& arrays);
void convolve_backward(Isa isa, const PathConvolution& path, const BackwardArrays& arrays);

}  // namespace faigfast
