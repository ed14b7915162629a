#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "bf16_gradients.h"
#include "score_reduction.h"
#include "squared_error.h"

namespace faigfast {
namespace {

bool runs_here(Isa isa) {
#ifdef FAIGFAST_X86
    // These builtins also ask whether the operating system saves the wide registers.
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               runs_here(Isa::avx2);
#endif
    return isa == Isa::portable;
}

std::string list(const std::vector<Isa>& isas) {
    std::string names;
    for (Isa isa : isas) names += (names.empty() ? "" : ", ") + name(isa);
    return names;
}

}  // namespace

std::string name(Isa isa) {
    return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable";
}

std::vector<Isa> compiled() {
#ifdef FAIGFAST_X86
    return {Isa::portable, Isa::avx2, Isa::avx512};
#else
    return {Isa::portable};
#endif
}

std::vector<Isa> supported() {
    std::vector<Isa> isas;
    for (Isa isa : compiled())
        if (runs_here(isa)) isas.push_back(isa);
    return isas;
}

Isa choose() {
    static const std::vector<Isa> here = supported();
    const char* asked = std::getenv("FAIGFAST_ISA");
    if (!asked || !*asked) return here.back();
    for (Isa isa : here)
        if (name(isa) == asked) return isa;
    throw std::invalid_argument("FAIGFAST_ISA is \"" + std::string(asked) + "\"; this build has " +
                                list(compiled()) + " and this processor runs " + list(here));
}

#ifdef FAIGFAST_X86
#define FAIGFAST_CALL(isa, function, ...)                \
    (isa) == Isa::avx512 ? avx512::function(__VA_ARGS__) \
    : (isa) == Isa::avx2 ? avx2::function(__VA_ARGS__)   \
                         : portable::function(__VA_ARGS__)
#else
#define FAIGFAST_CALL(isa, function, ...) ((void)(isa), portable::function(__VA_ARGS__))
#endif

#ifdef FAIGFAST_AMX
#define FAIGFAST_CALL_BF16(isa, function, ...)                     \
    (isa) == Isa::avx512&& amx_runs() ? amx::function(__VA_ARGS__) \
                                      : FAIGFAST_CALL(isa, function, __VA_ARGS__)
#else
#define FAIGFAST_CALL_BF16 FAIGFAST_CALL
#endif

template <typename T>
void score_reduction(Isa isa, const T* total, const T* delta, T* scores, int64_t n, int64_t f,
                     int64_t k, int threads) {
    FAIGFAST_CALL(isa, score_reduction, total, delta, scores, n, f, k, threads);
}

template void score_reduction(Isa, const float*, const float*, float*, int64_t, int64_t, int64_t,
                              int);
template void score_reduction(Isa, const double*, const double*, double*, int64_t, int64_t, int64_t,
                              int);

void squared_error(Isa isa, const float* y, const float* gt, float* losses, float* most, int64_t p,
                   int64_t n, int64_t e, int threads) {
    FAIGFAST_CALL(isa, squared_error, y, gt, losses, most, p, n, e, threads);
}

void squared_error_backward(Isa isa, const float* y, const float* gt, const float* weights,
                            float* gy, int64_t p, int64_t n, int64_t e, int threads) {
    FAIGFAST_CALL(isa, squared_error_backward, y, gt, weights, gy, p, n, e, threads);
}

void attend(Isa isa, const Attention& attention, float* y, float* stats) {
    FAIGFAST_CALL(isa, attend, attention, y, stats);
}

void attend_backward(Isa isa, const Attention& attention, const AttentionGradients& gradients) {
    FAIGFAST_CALL(isa, attend_backward, attention, gradients);
}

void averaged_activation(Isa isa, const AveragedActivation& given) {
    FAIGFAST_CALL(isa, averaged_activation, given);
}

void one_channel(Isa isa, const OneChannel& layer) { FAIGFAST_CALL(isa, one_channel, layer); }

int64_t multiply_add(Isa isa, int64_t rounds, int threads, float* result) {
    return FAIGFAST_CALL(isa, multiply_add, rounds, threads, result);
}

int64_t packed_size(Isa isa, const Packing& packing) {
    return FAIGFAST_CALL(isa, packed_size, packing);
}

void pack(Isa isa, const Packing& packing, const float* w, float* packed, int threads) {
    FAIGFAST_CALL(isa, pack, packing, w, packed, threads);
}

void convolve(Isa isa, const PathConvolution& path, const ForwardArrays& arrays) {
    FAIGFAST_CALL(isa, convolve, path, arrays);
}

void convolve_backward(Isa isa, const PathConvolution& path, const BackwardArrays& arrays) {
    if (path.bf16)
        FAIGFAST_CALL_BF16(isa, bf16_backward, path, arrays);
    else
        FAIGFAST_CALL(isa, convolve_backward, path, arrays);
}

}  // namespace faigfast
