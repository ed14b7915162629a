// Gradients of convolutions with stride 1 in bfloat16: gy, x and γ(α) are rounded to it, and their
// products are summed in float32. The forward stays in float32, since its rounding would cost ten
// times as much: see docs/lab/bf16.md.

#include "bf16_gradients.h"

#include "bf16/input_gradient.h"
#include "bf16/weight_gradient.h"
#include "memory.h"

namespace faigfast::FAIGFAST_ISA {

void bf16_backward(const PathConvolution& path, const BackwardArrays& arrays) {
    const Channels out(path.outputs, path.width, path.shuffle);
    const Scratch slopes(4 * path.points * out.padded);
    fill_slopes(path, out, slopes.floats());
    const Convolution input = input_gradient(path, arrays, slopes.floats(), 1);
    const auto sum_weights = [&](ThreadWork more) {
        const Bf16WeightGradient gradient(path, arrays, slopes.floats());
        sum_image_gradients(path, arrays, gradient.rows(), gradient.size(), more,
                            [&](float* room, int64_t image, Range rows, const ImageGradients& to) {
                                gradient.add_rows(room, image, rows, to);
                            });
    };
    run_backward(path, arrays, sum_weights,
                 [&](auto run) { each_thread<Bf16InputGradient>(input, mask_of(path), run); });
}

}  // namespace faigfast::FAIGFAST_ISA
