#include "heap.h"

#include <climits>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace faigfast {

#if defined(__GLIBC__)
namespace {

// The thresholds that glibc reaches by itself after freeing its largest mmapped block.
constexpr int kLargestBlock = 32 << 20;
constexpr int kUsualTrim = 2 * kLargestBlock;

bool set_by_environment() {
    for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"})
        if (std::getenv(name)) return true;
    const char* tunables = std::getenv("GLIBC_TUNABLES");
    return tunables && std::strstr(tunables, "glibc.malloc");
}

}  // namespace

void keep_freed(bool keep) {
    static const bool theirs = set_by_environment();
    if (theirs) return;
    mallopt(M_MMAP_THRESHOLD, kLargestBlock);
    mallopt(M_TRIM_THRESHOLD, keep ? INT_MAX : kUsualTrim);
}

void trim_heap() { malloc_trim(0); }
#else
void keep_freed(bool) {}
void trim_heap() {}
#endif

}  // namespace faigfast
