// Gradients of convolutions with stride 1 in bfloat16: gy, x and γ(α) are rounded to it, and their
// products are summed in float32. The forward stays in float32, since its rounding would cost ten
// times as much: see docs/lab/bf16.md.

#include "bf16_gradients.h"

#include "bf16/input_gradient.h"
#include "bf16/weight_gradient.h"
#include "memory.h"

namespace faigfast::FAIGFAST_ISA {

void bf16_input_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels in(path.outputs, path.width, path.shuffle);
    const Scratch slopes(4 * path.points * in.padded);
    fill_slopes(path, in, slopes.floats());
    run_each_thread<Bf16InputGradient>(input_gradient(path, arrays, slopes.floats(), 1),
                                       mask_of(path));
}

void bf16_weight_gradient(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels out(path.outputs, path.width, path.shuffle);
    const Scratch slopes(4 * path.points * out.padded);
    fill_slopes(path, out, slopes.floats());
    const Bf16WeightGradient gradient(path, arrays, slopes.floats());
    sum_image_gradients(path, arrays, gradient.rows(), gradient.size(),
                        [&](float* room, int64_t image, Range rows, const ImageGradients& to) {
                            gradient.add_rows(room, image, rows, to);
                        });
}

}  // namespace faigfast::FAIGFAST_ISA
