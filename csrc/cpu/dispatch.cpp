#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "score_reduction.h"

namespace faigfast {
namespace {

bool runs_here(Isa isa) {
#ifdef FAIGFAST_X86
    // These builtins ask the operating system too, whether it saves the wide registers.
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

template <typename T>
void score_reduction(Isa isa, const T* total, const T* delta, T* scores, int64_t n, int64_t f,
                     int64_t k, int threads) {
#ifdef FAIGFAST_X86
    if (isa == Isa::avx512) return avx512::score_reduction(total, delta, scores, n, f, k, threads);
    if (isa == Isa::avx2) return avx2::score_reduction(total, delta, scores, n, f, k, threads);
#endif
    portable::score_reduction(total, delta, scores, n, f, k, threads);
}

template void score_reduction(Isa, const float*, const float*, float*, int64_t, int64_t, int64_t,
                              int);
template void score_reduction(Isa, const double*, const double*, double*, int64_t, int64_t, int64_t,
                              int);

}  // namespace faigfast
