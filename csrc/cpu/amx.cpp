#include "bf16_gradients.h"

#ifdef FAIGFAST_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace faigfast {
namespace {

#ifdef FAIGFAST_AMX
bool permitted() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool tiles = d >> 24 & 1, products = d >> 22 & 1;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
    const bool rounds = a >> 5 & 1;  // AVX512-BF16
    if (!tiles || !products || !rounds) return false;
    // Linux gives the registers of tiles (state 18) to a process that asks for them.
    constexpr long request = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#else
bool permitted() { return false; }
#endif

}  // namespace

bool amx_runs() {
    static const bool runs = permitted();
    return runs;
}

}  // namespace faigfast
