// Runs every CUDA kernel, emulated, on memory of exactly its sizes under sanitizers, which find the
// errors that memcheck would find on a device. Compares the Hopper convolution with a direct one.
// Prints what it ran.

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

template <typename T>
bool is_nan(T value) {
    if constexpr (sizeof(T) == 2) {
        return __half2float(value) != __half2float(value);
    } else {
        return value != value;
    }
}

template <typename T>
void demand_written(Array<T>& array, const char* kernel) {
    for (int64_t i = 0; i < array.size; ++i)
        if (is_nan(array[i])) fail(kernel);
}

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

template <typename T>
void try_path_weights(Type type, int64_t outputs, int64_t inputs, int64_t taps) {
    const int64_t size = outputs * inputs * taps, points = 3;
    auto alpha = filled<float>(points, 1);
    auto w0 = filled<T>(size, 2), dw = filled<T>(size, 3);
    for (bool moves : {true, false}) {
        Array<__half> gamma(points * size);
        path_weights(kHere,
                     {type, Type::fp16, points, outputs, inputs, taps, inputs * taps, taps, 1,
                      alpha.data(), w0.data(), moves ? dw.data() : nullptr, gamma.data()});
        demand_written(gamma, "path_weights");
    }
}

template <typename T>
void try_score_reduction(Type type, int64_t images, int64_t outputs, int64_t inputs, int64_t taps) {
    auto total = filled<T>(images * outputs * inputs * taps, 1);
    auto delta = filled<T>(outputs * inputs * taps, 2);
    for (bool last : {true, false}) {
        Array<T> scores(images * outputs * inputs);
        score_reduction(kHere, {type, images, outputs, inputs, taps, last, total.data(),
                                delta.data(), scores.data()});
        demand_written(scores, "score_reduction");
    }
}

template <typename T>
void try_loss_gradient(Type type, int64_t points, int64_t images, int64_t size) {
    auto y = filled<T>(points * images * size, 1);
    auto gt = filled<float>(images * size, 2), weights = filled<float>(points * images, 3);
    Array<T> gy(points * images * size);
    loss_gradient(kHere, {type, Type::fp32, points, images, size, y.data(), gt.data(),
                          weights.data(), gy.data()});
    demand_written(gy, "loss_gradient");
}

template <typename T>
void try_mask_gradient(Type type, int64_t points, int64_t images, int64_t samples, int64_t height,
                       int64_t width, int64_t channels, int64_t shuffle, Activation activation) {
    const int64_t size = points * images * samples * height * width * channels;
    auto gy = filled<T>(size, 1), saved = filled<T>(size, 2);
    auto slopes = filled<float>(points * channels, 3);
    Array<T> g(size);
    Array<float> gb(images * channels), gs(images * channels);
    MaskGradient given = {type,     points,  images,     samples,   height,       width,
                          channels, shuffle, activation, gy.data(), saved.data(), slopes.data(),
                          0.5f,     0.25f,   g.data(),   gb.data(), gs.data(),    nullptr};
    Array<float> room(mask_gradient_room(given));
    given.room = room.data();
    mask_gradient(kHere, given);
    demand_written(g, "mask_gradient, g");
    demand_written(gb, "mask_gradient, gb");
    demand_written(gs, "mask_gradient, gs");
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
    for (int64_t outputs : {1, 7}) {
        try_path_weights<float>(Type::fp32, outputs, 5, 9);
        try_path_weights<__half>(Type::fp16, outputs, 64, 1);
    }
    std::puts("path_weights");
    for (int64_t taps : {1, 4, 9, 81}) {
        try_score_reduction<float>(Type::fp32, 3, 5, 61, taps);
        try_score_reduction<double>(Type::fp64, 2, 1, 3, taps);
    }
    std::puts("score_reduction");
    for (int64_t size : {1, 7, 8, 1000}) {
        try_loss_gradient<float>(Type::fp32, 2, 3, size);
        try_loss_gradient<__half>(Type::fp16, 3, 2, size);
    }
    std::puts("loss_gradient");
    for (Activation activation : {Activation::none, Activation::relu, Activation::leaky})
        for (int64_t channels : {1, 8, 12, 72, 300}) {
            try_mask_gradient<float>(Type::fp32, 2, 2, 3, 5, 7, channels, 1, activation);
            try_mask_gradient<__half>(Type::fp16, 3, 1, 1, 4, 3, channels, 1, activation);
            if (channels % 4 == 0)
                try_mask_gradient<__half>(Type::fp16, 2, 2, 1, 3, 5, channels, 2, activation);
        }
    std::puts("mask_gradient");
    try_convolution64(1, 1, 3, 5);
    try_convolution64(2, 2, 17, 16);
    try_convolution64(3, 1, 20, 35);
    std::puts("convolution64");
}
