// faigfast._C: what Python sees. Tensors arrive as addresses and sizes; the Python side has checked
// them and keeps them alive.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <variant>

#include "cpu/bf16_gradients.h"
#include "cpu/denormals.h"
#include "cpu/dispatch.h"
#include "cpu/heap.h"
#include "cpu/memory.h"
#include "cpu/streaming.h"
#include "tensor.h"

namespace py = pybind11;

namespace {

std::vector<std::string> names(const std::vector<faigfast::Isa>& isas) {
    std::vector<std::string> result;
    for (faigfast::Isa isa : isas) result.push_back(faigfast::name(isa));
    return result;
}

template <typename T>
void score_reduction(uintptr_t total, uintptr_t delta, uintptr_t scores, int64_t n, int64_t f,
                     int64_t k, int threads) {
    // The interpreter owns the environment, so this reads it before it releases the GIL.
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::score_reduction(isa, reinterpret_cast<const T*>(total),
                              reinterpret_cast<const T*>(delta), reinterpret_cast<T*>(scores), n, f,
                              k, threads);
}

template <typename T>
void define_score_reduction(py::module_& module, const char* name) {
    module.def(name, &score_reduction<T>, py::arg("total"), py::arg("delta"), py::arg("scores"),
               py::arg("n"), py::arg("f"), py::arg("k"), py::arg("threads"),
               "scores [n, f] = sum over k of |delta [f, k] * total [n, f, k]|, at addresses.");
}

const float* in(uintptr_t address) { return reinterpret_cast<const float*>(address); }
float* out(uintptr_t address) { return reinterpret_cast<float*>(address); }

using Shape = std::array<int64_t, 3>;

void squared_error(uintptr_t y, uintptr_t gt, uintptr_t losses, uintptr_t most, Shape shape,
                   int threads) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::squared_error(isa, in(y), in(gt), out(losses), out(most), shape[0], shape[1],
                            shape[2], threads);
}

void squared_error_backward(uintptr_t y, uintptr_t gt, uintptr_t weights, uintptr_t gy, Shape shape,
                            int threads) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::squared_error_backward(isa, in(y), in(gt), in(weights), out(gy), shape[0], shape[1],
                                     shape[2], threads);
}

// An address, and strides of window, head, row and column.
using Strided = std::pair<uintptr_t, std::array<int64_t, 4>>;

faigfast::Matrices matrices(const Strided& given) {
    const auto& [address, strides] = given;
    return {in(address), strides[0], strides[1], strides[2], strides[3]};
}

// windows, heads, rows, columns, depth, width
faigfast::Attention attention(std::array<int64_t, 6> sizes, const Strided& q, const Strided& k,
                              const Strided& v, const Strided& bias, const Strided& mask,
                              int threads) {
    return {sizes[0],    sizes[1],    sizes[2],    sizes[3],       sizes[4],       sizes[5],
            matrices(q), matrices(k), matrices(v), matrices(bias), matrices(mask), threads};
}

void attend(const faigfast::Attention& attention, uintptr_t y, uintptr_t stats) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::attend(isa, attention, out(y), out(stats));
}

void attend_backward(const faigfast::Attention& attention, uintptr_t gy, uintptr_t stats,
                     uintptr_t gq, uintptr_t gk, uintptr_t gv, uintptr_t gbias) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::attend_backward(isa, attention,
                              {in(gy), in(stats), out(gq), out(gk), out(gv), out(gbias)});
}

void define_attention(py::module_& module) {
    py::class_<faigfast::Attention>(module, "Attention",
                                    "Heads of windows; matrices by address and strides.")
        .def(py::init(&attention), py::kw_only(), py::arg("sizes"), py::arg("q"), py::arg("k"),
             py::arg("v"), py::arg("bias"), py::arg("mask"), py::arg("threads"));
    module.def("attend", &attend, py::arg("attention"), py::kw_only(), py::arg("y"),
               py::arg("stats"), "y = softmax(q k + bias + mask) v, and each row's statistics.");
    module.def("attend_backward", &attend_backward, py::arg("attention"), py::kw_only(),
               py::arg("gy"), py::arg("stats"), py::arg("gq"), py::arg("gk"), py::arg("gv"),
               py::arg("gbias"), "Gradients; gbias is summed over the windows.");
}

faigfast::Activation activation_of(const std::string& name) {
    if (name == "none") return faigfast::Activation::none;
    if (name == "factor") return faigfast::Activation::factor;
    return name == "relu" ? faigfast::Activation::relu : faigfast::Activation::leaky;
}

// samples, height, width, channels, shuffle
void one_channel(std::array<int64_t, 5> sizes, uintptr_t change, uintptr_t w, uintptr_t known,
                 uintptr_t residual, uintptr_t y, const std::string& activation, float slope,
                 float scale, int threads) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::one_channel(
        isa, {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], in(change), in(w), in(known),
              in(residual), out(y), activation_of(activation), slope, scale, threads});
}

void define_one_channel(py::module_& module) {
    module.def("one_channel", &one_channel, py::kw_only(), py::arg("sizes"), py::arg("change"),
               py::arg("w"), py::arg("known"), py::arg("residual"), py::arg("y"),
               py::arg("activation"), py::arg("slope"), py::arg("scale"), py::arg("threads"),
               "y [samples, result] = scale * act(known + conv(change)) + residual.");
}

faigfast::Kind kind_of(const std::string& name) {
    if (name == "direct") return faigfast::Kind::direct;
    if (name == "depthwise") return faigfast::Kind::depthwise;
    return name == "point" ? faigfast::Kind::point : faigfast::Kind::squares;
}

using Pair = std::array<int64_t, 2>;

faigfast::Kernel kernel(const std::string& kind, Pair size, Pair padding, Pair stride,
                        Pair dilation, int64_t groups, bool transposed) {
    return {kind_of(kind), size[0],     size[1],     padding[0], padding[1], stride[0],
            stride[1],     dilation[0], dilation[1], groups,     transposed};
}

faigfast::PathConvolution path_convolution(std::array<int64_t, 6> sizes, Pair x_size,
                                           const faigfast::Kernel& kernel, int64_t shuffle,
                                           uintptr_t alpha, uintptr_t w0, uintptr_t dw,
                                           uintptr_t b0, uintptr_t db, uintptr_t s0, uintptr_t ds,
                                           bool shared_slope, const std::string& activation,
                                           float slope, float scale, bool bf16, int threads) {
    if (bf16 && kernel.kind != faigfast::Kind::squares && kernel.kind != faigfast::Kind::point)
        throw std::invalid_argument("bf16 serves the kinds squares and point alone");
    return {sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            sizes[4],
            sizes[5],
            x_size[0],
            x_size[1],
            kernel,
            shuffle,
            in(alpha),
            in(w0),
            in(dw),
            in(b0),
            in(db),
            in(s0),
            in(ds),
            shared_slope,
            activation_of(activation),
            slope,
            scale,
            bf16,
            threads};
}

faigfast::Packing packing(int64_t outputs, int64_t inputs, int64_t squares, int64_t shuffle,
                          bool input_gradient) {
    return {inputs, outputs, shuffle, input_gradient, squares};
}

void pack(const faigfast::Packing& packing, uintptr_t w, uintptr_t packed, int threads) {
    const faigfast::Isa isa = faigfast::choose();
    py::gil_scoped_release released;
    faigfast::pack(isa, packing, in(w), out(packed), threads);
}

// A convolution, its gradients or an activation, ready to run.
struct Task {
    faigfast::PathConvolution path;
    std::variant<faigfast::ForwardArrays, faigfast::BackwardArrays, faigfast::AveragedActivation>
        given;

    void run(faigfast::Isa isa) const {
        if (const auto* forward = std::get_if<faigfast::ForwardArrays>(&given))
            faigfast::convolve(isa, path, *forward);
        else if (const auto* backward = std::get_if<faigfast::BackwardArrays>(&given))
            faigfast::convolve_backward(isa, path, *backward);
        else
            faigfast::averaged_activation(isa, std::get<faigfast::AveragedActivation>(given));
    }
};

Task forward(const faigfast::PathConvolution& path, uintptr_t x, int64_t x_point, int64_t x_pixel,
             uintptr_t residual, int64_t residual_point, uintptr_t y) {
    return {path,
            faigfast::ForwardArrays{in(x), x_point, x_pixel, in(residual), residual_point, out(y)}};
}

Task backward(const faigfast::PathConvolution& path, uintptr_t gy, uintptr_t saved, uintptr_t x,
              int64_t x_point, int64_t x_pixel, int64_t images, uintptr_t more, int64_t more_pixel,
              const std::string& before, float before_slope, uintptr_t before_factors, uintptr_t gx,
              uintptr_t gw, uintptr_t gb, uintptr_t gs) {
    return {path,
            faigfast::BackwardArrays{in(gy), in(saved), in(x), x_point, x_pixel, images, in(more),
                                     more_pixel, activation_of(before), before_slope,
                                     in(before_factors), out(gx), out(gw), out(gb), out(gs)}};
}

Task averaged_activation(int64_t points, int64_t elements, uintptr_t z, uintptr_t y,
                         uintptr_t factors, uintptr_t neighbours, uintptr_t coefficients,
                         float slope, int threads) {
    return {{},
            faigfast::AveragedActivation{points, elements, in(z), out(y), out(factors),
                                         reinterpret_cast<const int64_t*>(neighbours),
                                         in(coefficients), slope, threads}};
}

void run(const std::vector<Task*>& tasks) {
    const faigfast::Isa isa = faigfast::choose();
    for (const Task* task : tasks) {
        {
            py::gil_scoped_release released;
            task->run(isa);
        }
        if (PyErr_CheckSignals()) throw py::error_already_set();
    }
}

void define_convolution(py::module_& module) {
    py::class_<faigfast::Packing>(module, "Packing",
                                  "Weights [squares, outputs, 3, 3, inputs] in the kernels' "
                                  "order; turned: for the input gradient.")
        .def(py::init(&packing), py::kw_only(), py::arg("outputs"), py::arg("inputs"),
             py::arg("squares"), py::arg("shuffle"), py::arg("turned"))
        .def(
            "size",
            [](const faigfast::Packing& packing) {
                return faigfast::packed_size(faigfast::choose(), packing);
            },
            "Floats that `pack` writes; 0: the kernels read the weights in place.");
    module.def("pack", &pack, py::arg("packing"), py::kw_only(), py::arg("w"), py::arg("packed"),
               py::arg("threads"));
    py::class_<faigfast::Kernel>(module, "Kernel",
                                 "Squares of 3×3 taps (\"squares\"), or taps, down and across.")
        .def(py::init(&kernel), py::kw_only(), py::arg("kind"), py::arg("size"), py::arg("padding"),
             py::arg("stride"), py::arg("dilation"), py::arg("groups"), py::arg("transposed"));
    py::class_<faigfast::PathConvolution>(module, "PathConvolution",
                                          "A layer at points of the line; 0 is no address.")
        .def(py::init(&path_convolution), py::kw_only(), py::arg("sizes"), py::arg("x_size"),
             py::arg("kernel"), py::arg("shuffle"), py::arg("alpha"), py::arg("w0"), py::arg("dw"),
             py::arg("b0"), py::arg("db"), py::arg("s0"), py::arg("ds"), py::arg("shared_slope"),
             py::arg("activation"), py::arg("slope"), py::arg("scale"), py::arg("bf16"),
             py::arg("threads"));
    py::class_<Task>(module, "Task", "A layer with its arrays, ready to run.");
    module.def("forward", &forward, py::arg("path"), py::kw_only(), py::arg("x"),
               py::arg("x_point"), py::arg("x_pixel"), py::arg("residual"),
               py::arg("residual_point"), py::arg("y"));
    module.def("backward", &backward, py::arg("path"), py::kw_only(), py::arg("gy"),
               py::arg("saved"), py::arg("x"), py::arg("x_point"), py::arg("x_pixel"),
               py::arg("images"), py::arg("more"), py::arg("more_pixel"), py::arg("before"),
               py::arg("before_slope"), py::arg("before_factors"), py::arg("gx"), py::arg("gw"),
               py::arg("gb"), py::arg("gs"));
    module.def("averaged_activation", &averaged_activation, py::kw_only(), py::arg("points"),
               py::arg("elements"), py::arg("z"), py::arg("y"), py::arg("factors"),
               py::arg("neighbours"), py::arg("coefficients"), py::arg("slope"), py::arg("threads"),
               "y = act(z), and its slope averaged over each point's cell.");
    module.def("run", &run, py::arg("tasks"), "One after the other, until a signal interrupts.");
    module.def("new_tensor", &faigfast::new_tensor, py::arg("shape"),
               "DLPack capsule of an uninitialised float32 tensor, in memory from the cache.");
    module.def("free_cached", &faigfast::free_cached,
               "Give the memory kept for later calls back to the system.");
    module.def("cached", &faigfast::cached, "Bytes of memory kept for later calls.");
    module.def("streaming", &faigfast::streaming,
               "Whether images of large layers are prefetched and stored non-temporally.");
    module.def("set_streaming", &faigfast::set_streaming, py::arg("large_layers"),
               py::arg("from_bytes") = 0,
               "Set whether they are, and from how many bytes of images a thread a layer is "
               "large; 0: the size of the L2 cache.");
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() =
        "Compiled kernels of faigfast; they take addresses of contiguous arrays and sizes.";
    module.def(
        "isa", [] { return faigfast::name(faigfast::choose()); }, "The instruction set in use.");
    module.def(
        "amx", [] { return faigfast::choose() == faigfast::Isa::avx512 && faigfast::amx_runs(); },
        "Whether gradients in bfloat16 use AMX; without it they are computed in plain C++.");
    module.def("compiled", [] { return names(faigfast::compiled()); });
    module.def("supported", [] { return names(faigfast::supported()); });
    define_score_reduction<float>(module, "score_reduction_float32");
    define_score_reduction<double>(module, "score_reduction_float64");
    module.def(
        "squared_error", &squared_error, py::kw_only(), py::arg("y"), py::arg("gt"),
        py::arg("losses"), py::arg("most"), py::arg("shape"), py::arg("threads"),
        "losses [p, n] = sum over e of (y [p, n, e] - gt [n, e])^2, and largest differences.");
    module.def("squared_error_backward", &squared_error_backward, py::kw_only(), py::arg("y"),
               py::arg("gt"), py::arg("weights"), py::arg("gy"), py::arg("shape"),
               py::arg("threads"), "gy = 2 * weights [p, n] * (y - gt).");
    define_attention(module);
    define_one_channel(module);
    define_convolution(module);
    module.def(
        "flush_denormals", &faigfast::flush_denormals, py::arg("threads"),
        "Flush denormal numbers to 0 in this thread and its team; returns the words from before.");
    module.def("set_control_words", &faigfast::set_control_words, py::arg("words"),
               "Restore the words that `flush_denormals` returned.");
    module.def("keep_freed", &faigfast::keep_freed, py::arg("keep"),
               "Let the C library keep freed memory, or give it back as usual.");
    module.def("trim_heap", &faigfast::trim_heap, "Give freed memory back to the system now.");
    module.def(
        "multiply_add",
        [](int64_t rounds, int threads) {
            const faigfast::Isa isa = faigfast::choose();
            float result = 0;
            py::gil_scoped_release released;
            return faigfast::multiply_add(isa, rounds, threads, &result);
        },
        py::arg("rounds"), py::arg("threads"),
        "Multiply-adds in registers alone; returns the number of floating-point operations.");
}
