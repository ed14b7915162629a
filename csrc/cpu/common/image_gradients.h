#pragma once

// Gradients of weights, biases and slopes of every image, summed by several threads.

#include "../memory.h"
#include "../path_convolution.h"
#include "parallel.h"
#include "vector.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Addresses of one image's gradients; null marks a gradient that the caller does not want.
struct ImageGradients {
    float *gw, *gb, *gs;
};

// Calls add(room, image, units, to) for shares of the units, tiles or rows, of every image, where
// each thread has `room` floats of scratch. Where several threads share an image, the first writes
// its part into the result; the parts of the others are added at the end, in order of the threads.
// Every thread calls `more` once its own share is done: the shares of slow threads must not pass to
// others, since the order of a sum changes its last bits, but other work may.
template <typename Add>
void sum_image_gradients(const PathConvolution& path, const BackwardArrays& arrays, int64_t units,
                         int64_t room, ThreadWork more, Add add) {
    const int64_t weights = path.weights();
    const int64_t own = round_up(room + weights + 2 * path.outputs, 16);
    const Scratch scratch(4 * path.threads * (own + 16));
    float* owns = scratch.floats();
    const int64_t total = arrays.images * units;
    const auto at = [](float* start, int64_t offset) { return start ? start + offset : nullptr; };
    const auto of_image = [&](int64_t image) {
        return ImageGradients{at(arrays.gw, image * weights), at(arrays.gb, image * path.outputs),
                              at(arrays.gs, image * path.outputs)};
    };
    // A thread's part of an image that another thread began.
    const auto part_of = [&](int id) {
        float* start = owns + id * own + room;
        return ImageGradients{arrays.gw ? start : nullptr, arrays.gb ? start + weights : nullptr,
                              arrays.gs ? start + weights + path.outputs : nullptr};
    };

#pragma omp parallel num_threads(path.threads)
    {
        const int id = thread_id(), threads = thread_count();
        const Range mine = share(total, id, threads);
        for (int64_t done = mine.begin; done < mine.end;) {
            const int64_t image = done / units, first = done % units;
            const int64_t last = least(units, first + mine.end - done);
            add(owns + id * own, image, Range{first, last}, first ? part_of(id) : of_image(image));
            done += last - first;
        }
        more();
#pragma omp barrier
        for (int other = 1; other < threads; ++other) {
            const Range theirs = share(total, other, threads);
            if (theirs.begin == theirs.end || theirs.begin % units == 0) continue;
            const ImageGradients from = part_of(other), to = of_image(theirs.begin / units);
            const auto add_share = [&](const float* part, float* sum, int64_t size) {
                const Range some = share(size, id, threads);
                for (int64_t i = some.begin; i < some.end && sum; ++i) sum[i] += part[i];
            };
            add_share(from.gw, to.gw, weights);
            add_share(from.gb, to.gb, path.outputs);
            add_share(from.gs, to.gs, path.outputs);
        }
    }
}

// Computes the gradients that `arrays` has addresses for. sum(more) sums those of the weights with
// `sum_image_gradients`; with_input(run) calls run(work), where every thread calls work() for its
// part of the input's.
template <typename Sum, typename WithInput>
void run_backward(const PathConvolution& path, const BackwardArrays& arrays, Sum sum,
                  WithInput with_input) {
    const bool sums = arrays.gw || arrays.gb || arrays.gs;
    if (!arrays.gx) {
        if (sums) sum(ThreadWork::of([] {}));
        return;
    }
    with_input([&](const auto& work) {
        if (sums)
            sum(ThreadWork::of(work));
        else
            run_in_parallel(path.threads, work);
    });
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
