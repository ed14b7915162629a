#pragma once

// Division of work among threads that may differ in speed, whose results do not depend on it.

#include "../memory.h"
#include "parallel.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Every thread has a share of the units, the same for the same total, so that it reads in one layer
// what it wrote in the layer before. It takes half of what is left from the front; once its share
// is done, it takes from the ends of the others'. Make it before the threads begin.
class Shares {
public:
    // A thread takes `grain` units or more, unless that is more than a quarter of its share.
    Shares(int64_t total, int64_t grain, int threads)
        : total_(total),
          grain_(most(1, least(grain, total / (4 * threads)))),
          threads_(threads),
          memory_(sizeof(Left) * threads),
          left_(reinterpret_cast<Left*>(memory_.floats())) {
        reset(0, 1);
    }

    // Gives all threads their shares again, if each of `count` running threads calls it, which may
    // be fewer; none must take meanwhile.
    void reset(int id, int count) const {
        for (; id < threads_; id += count) {
            const Range mine = share((total_ + grain_ - 1) / grain_, id, threads_);
            left_[id].grains = packed((uint64_t)mine.begin, (uint64_t)mine.end);
        }
    }

    // Calls f(units) until nothing is left.
    template <typename F>
    void each(int id, F f) const {
        for (Range some = take(id); some.size() > 0; some = take(id))
            f(Range{some.begin * grain_, least(some.end * grain_, total_)});
    }

private:
    // The first and the last end of what is left, in 32 bits each; a cache line of its own.
    struct alignas(64) Left {
        uint64_t grains;
    };

    static uint64_t packed(uint64_t begin, uint64_t end) { return begin << 32 | end; }

    static Range unpacked(uint64_t grains) {
        return {(int64_t)(grains >> 32), (int64_t)(grains & UINT32_MAX)};
    }

    Range left(int id) const {
        return unpacked(__atomic_load_n(&left_[id].grains, __ATOMIC_RELAXED));
    }

    Range take(int id) const {
        for (int from = id; left(from).size() > 0 || (from = fullest()) >= 0;) {
            const Range some = half(from, from == id);
            if (some.size() > 0) return some;
        }
        return {0, 0};
    }

    // The thread with most left, −1 where nothing is.
    int fullest() const {
        int best = -1;
        int64_t size = 0;
        for (int id = 0; id < threads_; ++id)
            if (left(id).size() > size) size = left(best = id).size();
        return best;
    }

    // Half of what a thread has left, from the front or from the end; empty where it has nothing.
    Range half(int id, bool front) const {
        uint64_t seen = __atomic_load_n(&left_[id].grains, __ATOMIC_RELAXED);
        for (;;) {
            const Range all = unpacked(seen);
            if (all.size() <= 0) return {0, 0};
            const int64_t count = (all.size() + 1) / 2;
            const Range some =
                front ? Range{all.begin, all.begin + count} : Range{all.end - count, all.end};
            const uint64_t rest = front ? packed(some.end, all.end) : packed(all.begin, some.begin);
            if (__atomic_compare_exchange_n(&left_[id].grains, &seen, rest, true, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED))
                return some;
        }
    }

    const int64_t total_, grain_;
    const int threads_;
    const Scratch memory_;
    Left* const left_;
};

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
