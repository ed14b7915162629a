#pragma once

// What the direct convolutions share: a writer that applies the epilogue to finished sums, and the
// loop that gives every thread its pixels or rows.

#include "../common/convolution.h"
#include "../common/shares.h"

namespace faigfast::FAIGFAST_ISA {
namespace {

// Writes results of a convolution at one point, through the epilogue; they are not shuffled.
template <Epilogue kEpilogue>
class OutputWriter {
public:
    OutputWriter(const Convolution& conv, bool nontemporal, int64_t point)
        : conv_(conv),
          nontemporal_(nontemporal),
          point_(point),
          scale_(broadcast(conv.scale())),
          mask_slope_(broadcast(conv.output_mask_slope)),
          result_(conv.result + point * conv.path.samples * conv.out_sample),
          residual_(conv.residual ? conv.residual + point * conv.residual_point : nullptr),
          mask_(conv.output_mask ? conv.output_mask + point * conv.output_mask_point : nullptr) {}

    // Some channels of every pixel, at most a vector of them.
    struct Column {
        const OutputWriter& writer;
        const int64_t offset;
        const int lanes;
        const Vec bias, slope;

        // Writes the sum of a pixel; pixels are counted through all samples.
        void write(Vec value, int64_t pixel) const {
            const Convolution& conv = writer.conv_;
            value = activated<kEpilogue>(value, bias, slope, writer.scale_);
            if (writer.residual_)
                value += read(writer.residual_ + pixel * conv.residual_pixel + offset, lanes);
            if (masks_output(kEpilogue)) {
                const float* saved = writer.mask_ + pixel * conv.output_mask_pixel + offset;
                value = mask_output<kEpilogue>(value, read(saved, lanes), writer.mask_slope_);
            }
            float* to = writer.result_ + pixel * conv.out.pitch + offset;
            if (writer.nontemporal_)
                store_nontemporal(to, value);
            else if (lanes == kLanes)
                store(to, value);
            else
                store(to, value, lanes);
        }
    };
    Column column(int64_t offset, int lanes) const {
        const int64_t column = point_ * conv_.out.padded + offset;
        return {*this, offset, lanes, conv_.bias ? read(conv_.bias + column, lanes) : Vec{},
                kEpilogue == Epilogue::leaky ? read(conv_.slopes + column, lanes) : Vec{}};
    }

private:
    const Convolution& conv_;
    const bool nontemporal_;
    const int64_t point_;
    const Vec scale_, mask_slope_;
    float* const result_;
    const float *const residual_, *const mask_;
};

// Calls run(work), where every thread calls work(): units, pixels or rows, of all samples at all
// points. Each thread interpolates the weights of its points itself.
template <typename Method, typename Run>
void each_thread(const Convolution& conv, GradientMask mask, Run run) {
    const PathConvolution& path = conv.path;
    const int64_t of_point = Method::units(conv);
    const int64_t size = round_up(Method::size(conv, mask), 16) + 16;
    const Scratch scratch(4 * path.threads * size);
    // A thread that takes units of another interpolates their weights again.
    const Shares shares(path.points * of_point, (of_point + 3) / 4, path.threads);

    run([&] {
        const int id = thread_id();
        Method method(conv, mask, scratch.floats() + id * size);
        int64_t begun = -1;
        shares.each(id, [&](Range some) {
            each_point(some, of_point, [&](int64_t point, Range units) {
                if (point != begun) method.begin_point(begun = point);
                method.run(point, units);
            });
        });
        finish_stores();
    });
}

}  // namespace
}  // namespace faigfast::FAIGFAST_ISA
