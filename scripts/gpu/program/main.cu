// What the Hopper convolution relies on, and the convolution itself, without Python.
//
//   conv64 descriptors   wgmma reads matrices that start inside the pattern of the swizzle
//   conv64 shapes        13 shapes against sums in double, integers to the bit, again and again
//   conv64 speed         replays of a CUDA graph
//   conv64 small         one shape, for compute-sanitizer
//   conv64 version       needs no device
//
// Exit status: 0, 1 where a check is wrong, 77 where the card is not of compute capability 9.0.

#include <cuda_runtime.h>

#include <cstdio>
#include <exception>
#include <string>

#include "checks.h"
#include "memory.cuh"

constexpr int kWrongCard = 77;

int main(int count, char** words) {
    const std::string part = count > 1 ? words[1] : "shapes";
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    if (part == "version") {
        std::printf("{\"name\": \"CUDA\", \"version\": %d}\n", CUDART_VERSION);
        return 0;
    }
    try {
        cudaDeviceProp card;
        must(cudaGetDeviceProperties(&card, 0), "there is no device");
        if (card.major != 9 || card.minor != 0) return kWrongCard;
        if (part == "descriptors") return descriptors() ? 0 : 1;
        if (part == "shapes") return shapes() ? 0 : 1;
        if (part == "small") return small_shape() ? 0 : 1;
        if (part == "speed") {
            speed();
            return 0;
        }
        std::fprintf(stderr, "%s is none of descriptors, shapes, speed, small, version\n",
                     part.c_str());
    } catch (const std::exception& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
    }
    return 2;
}
