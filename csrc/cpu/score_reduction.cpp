// scores[n, f] = sum over k of |delta[f, k] * total[n, f, k]|, the FAIG score of every k*k kernel.
//
// Only types and builtins of the headers, only internal linkage: the linker could keep an inline
// function of std, compiled here for AVX-512, for every processor.

#include "score_reduction.h"

#include <utility>

namespace faigfast::FAIGFAST_ISA {
namespace {

// 32 bytes with AVX-512 too: kernels of nine floats straddle cache lines, which made loads of 64
// bytes slower. The wider register file and the shuffles of AVX-512 are used all the same.
#ifdef __AVX2__
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int64_t kTask = 4096;              // kernels whose delta is reused for every image
constexpr int64_t kPrefetchDistance = 4096;  // bytes between a prefetch and its use
constexpr int64_t kSerial = 1 << 15;         // with fewer elements a second thread costs time

template <typename T>
struct Vector;

template <>
struct Vector<float> {
    typedef float Values __attribute__((vector_size(kVectorBytes)));
    typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
    static constexpr int32_t kNoSign = INT32_MAX;
};

template <>
struct Vector<double> {
    typedef double Values __attribute__((vector_size(kVectorBytes)));
    typedef int64_t Bits __attribute__((vector_size(kVectorBytes)));
    static constexpr int64_t kNoSign = INT64_MAX;
};

template <typename T>
using Values = typename Vector<T>::Values;
template <typename T>
using Bits = typename Vector<T>::Bits;
template <typename T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <typename T>
inline Values<T> load(const T* from, int64_t count = kLanes<T>) {
    Values<T> values = {};
    __builtin_memcpy(&values, from, count * sizeof(T));
    return values;
}

// {a[0], b[0], a[1], b[1], ...} in units of kUnit lanes, within every segment of kSegment lanes,
// from the lower or the upper half of each segment. One instruction in both uses below.
template <int kUnit, int kSegment, bool kUpper, typename T, int... I>
inline Values<T> zip(Values<T> a, Values<T> b, std::integer_sequence<int, I...>) {
#define FAIGFAST_LANE                                                         \
    (I / kSegment * kSegment + I % kSegment / kUnit / 2 * kUnit + I % kUnit + \
     (kUpper ? kSegment / 2 : 0) + (I / kUnit % 2 ? kLanes<T> : 0))...
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, FAIGFAST_LANE);
#else
    return __builtin_shuffle(a, b, Bits<T>{FAIGFAST_LANE});
#endif
#undef FAIGFAST_LANE
}

template <int kUnit, int kSegment, typename T>
inline void zip_and_add(Values<T>* rows, int stride) {
    constexpr auto kSequence = std::make_integer_sequence<int, kLanes<T>>();
#pragma GCC unroll 4
    for (int half = kSegment / kUnit / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) {
            const Values<T> a = rows[i * stride], b = rows[(i + half) * stride];
            rows[i * stride] = zip<kUnit, kSegment, false, T>(a, b, kSequence) +
                               zip<kUnit, kSegment, true, T>(a, b, kSequence);
        }
}

// Lane i of the result is the sum over the lanes of rows[i]: first within blocks of 16 bytes, which
// every instruction set shuffles best, then across the blocks.
template <typename T>
inline Values<T> sum_rows(Values<T>* rows) {
    constexpr int kBlock = 16 / sizeof(T);
#pragma GCC unroll 4
    for (int row = 0; row < kLanes<T>; row += kBlock) zip_and_add<1, kBlock, T>(rows + row, 1);
    zip_and_add<kBlock, kLanes<T>, T>(rows, kBlock);
    return rows[0];
}

// |delta * total| of one kernel, folded into one vector. Lanes past its end are masked; kReadsOn
// says that they may be read.
template <bool kReadsOn, typename T>
inline Values<T> fold(const T* total, const T* delta, int64_t k, Bits<T> no_sign, Bits<T> tail) {
    Values<T> sum = {};
    int64_t j = k / kLanes<T> * kLanes<T>;
    if (j < k) {
        const int64_t count = kReadsOn ? kLanes<T> : k - j;
        sum = (Values<T>)((Bits<T>)(load(total + j, count) * load(delta + j, count)) & tail);
    }
    for (j = 0; j + kLanes<T> <= k; j += kLanes<T>)
        sum += (Values<T>)((Bits<T>)(load(total + j) * load(delta + j)) & no_sign);
    return sum;
}

// As many kernels as a vector has lanes are folded, then summed across together. K is k where it is
// known at compile time, else 0.
template <int64_t K, typename T>
void reduce(const T* total, const T* delta, T* scores, int64_t f, int64_t any_k) {
    constexpr int64_t kRows = kLanes<T>;
    const int64_t k = K ? K : any_k;
    const Bits<T> no_sign = Bits<T>{} + Vector<T>::kNoSign;
    Bits<T> tail = {};
    for (int64_t lane = 0; lane < k % kRows; ++lane) tail[lane] = Vector<T>::kNoSign;

    for (int64_t begin = 0; begin < f; begin += kRows) {
        const int64_t left = f - begin;
        const T* t = total + begin * k;
        const T* d = delta + begin * k;
        for (int64_t byte = 0; byte < kRows * k * (int64_t)sizeof(T); byte += 64)
            __builtin_prefetch((const char*)t + kPrefetchDistance + byte);
        Values<T> rows[kRows] = {};
        if ((left - kRows) * k >= kRows) {
#pragma GCC unroll 16
            for (int64_t i = 0; i < kRows; ++i)
                rows[i] = fold<true>(t + i * k, d + i * k, k, no_sign, tail);
        } else {
            for (int64_t i = 0; i < kRows && i < left; ++i)
                rows[i] = fold<false>(t + i * k, d + i * k, k, no_sign, tail);
        }
        const Values<T> sums = sum_rows<T>(rows);
        __builtin_memcpy(scores + begin, &sums, (left < kRows ? left : kRows) * sizeof(T));
    }
}

template <typename T>
void reduce_elements(const T* total, const T* delta, T* scores, int64_t f) {
    for (int64_t i = 0; i < f; ++i) {
        const T product = delta[i] * total[i];
        if constexpr (sizeof(T) == 4)
            scores[i] = __builtin_fabsf(product);
        else
            scores[i] = __builtin_fabs(product);
    }
}

// One thread sums a score, in one order, so the number of threads does not change it.
template <typename T>
void run(const T* total, const T* delta, T* scores, int64_t n, int64_t f, int64_t k, int threads) {
    const int64_t tasks = (f + kTask - 1) / kTask;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for collapse(2) schedule(static) \
    num_threads(threads) if (threads > 1 && n * f * k > kSerial)
#endif
    for (int64_t task = 0; task < tasks; ++task) {
        for (int64_t image = 0; image < n; ++image) {
            const int64_t begin = task * kTask;
            const int64_t count = f - begin < kTask ? f - begin : kTask;
            const T* t = total + (image * f + begin) * k;
            const T* d = delta + begin * k;
            T* s = scores + image * f + begin;
            if (k == 1) {
                reduce_elements(t, d, s, count);
            } else if (k == 9) {
                reduce<9>(t, d, s, count, k);
            } else {
                reduce<0>(t, d, s, count, k);
            }
        }
    }
}

}  // namespace

void score_reduction(const float* total, const float* delta, float* scores, int64_t n, int64_t f,
                     int64_t k, int threads) {
    run(total, delta, scores, n, f, k, threads);
}

void score_reduction(const double* total, const double* delta, double* scores, int64_t n, int64_t f,
                     int64_t k, int threads) {
    run(total, delta, scores, n, f, k, threads);
}

}  // namespace faigfast::FAIGFAST_ISA
