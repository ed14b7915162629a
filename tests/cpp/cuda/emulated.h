// Runs CUDA kernels on the CPU, block after block: each thread of a block is a fiber that yields at
// barriers. Included before a .cu file in place of the headers of CUDA. FAIGFAST_ORDER=1 runs the
// threads of a block from last to first, so that a missing barrier changes the result;
// FAIGFAST_ORDER=2 suspends its last three warps after their first turn, far behind the others;
// FAIGFAST_ORDER=3 lets every third tile arrive long after the tiles that were asked for later.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define FAIGFAST_EMULATED
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define FAIGFAST_DYNAMIC_SHARED(name) unsigned char* name = emulated::Block::current->shared.data()

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(int64_t x = 1, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline thread_local cudaError_t last_error = cudaSuccess;  // of a failed call, until it is read
inline cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
inline cudaError_t cudaSetDevice(int device) {
    if (device != 0) last_error = 101;
    return device == 0 ? cudaSuccess : 101;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }

inline thread_local dim3 threadIdx, blockIdx, gridDim, blockDim;

struct __half {
    _Float16 value;
};
inline float __half2float(__half half) { return half.value; }
inline __half __float2half_rn(float value) { return {static_cast<_Float16>(value)}; }

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

namespace emulated {

// The threads that a barrier waits for.
enum Circle { kBlock, kGroup, kWarp };

// The threads of one block.
struct Block {
    struct Thread {
        ucontext_t context;
        std::unique_ptr<char[]> stack;
        bool done;
        int64_t met[3];  // how often it reached a barrier of each circle
        int copies_out;  // its tiles that still have to leave shared memory
    };

    static inline thread_local Block* current = nullptr;
    std::vector<Thread> threads;
    std::vector<unsigned char> shared;
    std::function<void()> body;
    std::vector<std::function<void()>> later;  // pending work of units other than the threads
    int64_t copies_in = 0;                     // asked for so far
    ucontext_t scheduler;
    unsigned running = 0;

    static constexpr size_t kStack = 1 << 16;
    static constexpr int kPatience = 100000;  // rounds of all threads before a deadlock is assumed
    static constexpr int kRest = 500;         // rounds without the last warps where they rest

    Block(unsigned size, size_t shared_bytes) : threads(size), shared(shared_bytes) {
        for (Thread& thread : threads) thread.stack.reset(new char[kStack]);
    }

    static bool ordered(char kind) {
        const char* order = std::getenv("FAIGFAST_ORDER");
        return order && *order == kind;
    }

    // Does some work after a number of rounds of all threads.
    static void do_later(std::function<void()> work, int rounds) {
        for (; rounds > 0; --rounds) work = [work] { current->later.push_back(work); };
        current->later.push_back(work);
    }

    static void start() {
        current->body();
        current->threads[current->running].done = true;
        give_way();
    }

    static void give_way() {
        swapcontext(&current->threads[current->running].context, &current->scheduler);
    }

    void run() {
        current = this;
        copies_in = 0;
        // Shared memory is uninitialised.
        std::fill(shared.begin(), shared.end(), 0xff);
        for (Thread& thread : threads) {
            thread.done = false;
            for (int64_t& times : thread.met) times = 0;
            thread.copies_out = 0;
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = kStack;
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, start, 0);
        }
        const bool reversed = ordered('1'), resting = ordered('2');
        const unsigned size = threads.size();
        int rounds = 0;
        for (bool going = true; going;) {
            going = false;
            for (unsigned i = 0; i < size; ++i) {
                running = reversed ? size - 1 - i : i;
                if (threads[running].done) continue;
                going = true;
                if (resting && rounds > 0 && rounds < kRest && running + 96 >= size) continue;
                threadIdx.x = running;
                swapcontext(&scheduler, &threads[running].context);
            }
            for (const auto& work : std::exchange(later, {})) work();
            if (++rounds > kPatience) {
                std::fprintf(stderr, "the threads of a block wait for each other\n");
                std::abort();
            }
        }
    }

    // Waits for the others of a circle; a thread that has ended counts as arrived. Returns how
    // often this thread has met the circle.
    static int64_t meet(Circle circle) {
        Block& block = *current;
        const unsigned all = block.threads.size(), own = block.running;
        const unsigned size = circle == kWarp ? 32 : circle == kGroup ? 128 : all;
        const unsigned begin = own / size * size, end = begin + size < all ? begin + size : all;
        const int64_t mine = ++block.threads[own].met[circle];
        const auto come = [&] {
            for (unsigned i = begin; i < end; ++i)
                if (!block.threads[i].done && block.threads[i].met[circle] < mine) return false;
            return true;
        };
        while (!come()) give_way();
        return mine;
    }
};

// Shows a value to the other lanes of the warp. There are two places, since a lane may show its
// next value before the others have read this one.
template <typename T>
struct Shown {
    static inline thread_local std::vector<T> places;
    const T* warp;

    explicit Shown(const T& value) {
        Block& block = *Block::current;
        const unsigned own = block.running, size = block.threads.size();
        places.resize(2 * size);
        T* side = places.data() + block.threads[own].met[kWarp] % 2 * size;
        side[own] = value;
        Block::meet(kWarp);
        warp = side + own / 32 * 32;
    }
    const T& of(unsigned lane) const { return warp[lane]; }
};

}  // namespace emulated

inline void __syncthreads() { emulated::Block::meet(emulated::kBlock); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulated::Shown<T>(value).of(threadIdx.x % 32 ^ mask);
}

namespace faigfast::cuda {

template <typename... Parameters, typename... Given>
void run_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                size_t shared_bytes, cudaStream_t, const Given&... given) {
    if (cudaGetLastError() != cudaSuccess)
        throw std::runtime_error(std::string("an error of earlier work shows at ") + name);
    emulated::Block block(threads, shared_bytes);
    block.body = [&] { kernel(given...); };
    gridDim = grid;
    blockDim = dim3(threads);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                block.run();
            }
}

}  // namespace faigfast::cuda
