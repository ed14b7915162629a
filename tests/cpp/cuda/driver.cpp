// Runs the Hopper convolution, emulated, on memory of exactly its sizes under sanitizers, which
// find the errors that memcheck would find on a device. Compares it with a direct one. Prints what
// it ran.

#include "../../../csrc/cuda/api.h"

#include "emulated_hopper.h"

namespace {

using namespace faigfast::cuda;

const Where kHere = {0, nullptr};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

// Its data ends where its memory ends; NaN until a kernel writes it.
template <typename T>
struct Array {
    std::unique_ptr<T[]> memory;
    int64_t size;

    explicit Array(int64_t size) : memory(new T[size]), size(size) {
        std::memset(memory.get(), 0xff, size * sizeof(T));
    }
    T* data() { return memory.get(); }
    T& operator[](int64_t i) { return memory[i]; }
};

// Small integers without a period that a tile could have.
float number(int64_t i, int seed) { return static_cast<float>((i * 37 + seed * 11) % 7 - 3); }

template <typename T>
Array<T> filled(int64_t size, int seed) {
    Array<T> array(size);
    for (int64_t i = 0; i < size; ++i) {
        if constexpr (sizeof(T) == 2) {
            array[i] = __float2half_rn(number(i, seed));
        } else {
            array[i] = number(i, seed);
        }
    }
    return array;
}

// The convolution of one sample at one point, for channel o of pixel (row, column); exact, from
// small integers.
float direct(Array<__half>& x, Array<__half>& gamma, int64_t sample, int64_t point, int64_t height,
             int64_t width, int64_t row, int64_t column, int64_t o) {
    float sum = 0;
    for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t r = row + tap / 3 - 1, c = column + tap % 3 - 1;
        if (r < 0 || c < 0 || r >= height || c >= width) continue;
        for (int64_t i = 0; i < 64; ++i)
            sum += __half2float(x[((sample * height + r) * width + c) * 64 + i]) *
                   __half2float(gamma[((point * 64 + o) * 9 + tap) * 64 + i]);
    }
    return sum;
}

void try_convolution64(int64_t points, int64_t samples, int64_t height, int64_t width) {
    const int64_t size = points * samples * height * width * 64;
    auto x = filled<__half>(size, 1), gamma = filled<__half>(points * 64 * 9 * 64, 2);
    auto residual = filled<__half>(size, 3);
    auto bias = filled<float>(points * 64, 4);
    Array<__half> y(size);
    convolution64(kHere,
                  {Type::fp16, points, samples, height, width, false, false, x.data(), gamma.data(),
                   bias.data(), residual.data(), y.data(), Activation::relu, 0.0f, 0.5f});
    for (int64_t i = 0; i < size; ++i) {
        const int64_t o = i % 64, column = i / 64 % width, row = i / 64 / width % height;
        const int64_t sample = i / 64 / width / height, point = sample / samples;
        float z = direct(x, gamma, sample, point, height, width, row, column, o);
        z += bias[point * 64 + o];
        const float expected = 0.5f * (z < 0 ? 0 : z) + __half2float(residual[i]);
        if (__half2float(y[i]) != __half2float(__float2half_rn(expected)))
            fail("convolution64 differs from a direct convolution");
    }
}

}  // namespace

int main() {
    try_convolution64(1, 1, 3, 5);
    try_convolution64(2, 2, 17, 16);
    try_convolution64(3, 1, 20, 35);
    std::puts("convolution64");
}
