// faigfast._C_cuda: the CUDA kernels as Python sees them. Tensors arrive as addresses and sizes;
// the Python side has checked them, keeps them alive and names the stream.

#include <pybind11/pybind11.h>

#include "api.h"

namespace py = pybind11;

namespace {

using namespace faigfast::cuda;

Type type_of(const std::string& name) {
    if (name == "fp16") return Type::fp16;
    if (name == "bf16") return Type::bf16;
    if (name == "fp32") return Type::fp32;
    if (name == "fp64") return Type::fp64;
    throw std::invalid_argument("type is '" + name + "'; expected fp16, bf16, fp32 or fp64");
}

Activation activation_of(const std::string& name) {
    if (name == "none") return Activation::none;
    if (name == "relu") return Activation::relu;
    if (name == "leaky") return Activation::leaky;
    throw std::invalid_argument("activation is '" + name + "'; expected none, relu or leaky");
}

template <typename T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

Where where_is(int device, uintptr_t stream) { return {device, at<void>(stream)}; }

void define_path_weights(py::module_& module) {
    module.def(
        "path_weights",
        [](int device, uintptr_t stream, const std::string& from, const std::string& to,
           int64_t points, int64_t outputs, int64_t inputs, int64_t taps, int64_t output_stride,
           int64_t input_stride, int64_t tap_stride, uintptr_t alpha, uintptr_t w0, uintptr_t dw,
           uintptr_t gamma) {
            path_weights(where_is(device, stream),
                         {type_of(from), type_of(to), points, outputs, inputs, taps, output_stride,
                          input_stride, tap_stride, at<float>(alpha), at<void>(w0), at<void>(dw),
                          at<void>(gamma)});
        },
        py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("from_type"),
        py::arg("to_type"), py::arg("points"), py::arg("outputs"), py::arg("inputs"),
        py::arg("taps"), py::arg("output_stride"), py::arg("input_stride"), py::arg("tap_stride"),
        py::arg("alpha"), py::arg("w0"), py::arg("dw"), py::arg("gamma"),
        "gamma [points, outputs, taps, inputs] = w0 + alpha * dw.");
}

void define_score_reduction(py::module_& module) {
    module.def(
        "score_reduction",
        [](int device, uintptr_t stream, const std::string& type, int64_t images, int64_t outputs,
           int64_t inputs, int64_t taps, bool taps_last, uintptr_t total, uintptr_t delta,
           uintptr_t scores) {
            score_reduction(where_is(device, stream),
                            {type_of(type), images, outputs, inputs, taps, taps_last,
                             at<void>(total), at<void>(delta), at<void>(scores)});
        },
        py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("type"), py::arg("images"),
        py::arg("outputs"), py::arg("inputs"), py::arg("taps"), py::arg("taps_last"),
        py::arg("total"), py::arg("delta"), py::arg("scores"),
        "scores [images, outputs * inputs] = sum over taps of |delta * total|.");
}

void define_loss_gradient(py::module_& module) {
    module.def(
        "loss_gradient",
        [](int device, uintptr_t stream, const std::string& type, const std::string& gt_type,
           int64_t points, int64_t images, int64_t size, uintptr_t y, uintptr_t gt,
           uintptr_t weights, uintptr_t gy) {
            loss_gradient(where_is(device, stream),
                          {type_of(type), type_of(gt_type), points, images, size, at<void>(y),
                           at<void>(gt), at<float>(weights), at<void>(gy)});
        },
        py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("type"), py::arg("gt_type"),
        py::arg("points"), py::arg("images"), py::arg("size"), py::arg("y"), py::arg("gt"),
        py::arg("weights"), py::arg("gy"), "gy = 2 * weights * (y - gt).");
}

void define_mask_gradient(py::module_& module) {
    py::class_<MaskGradient>(module, "MaskGradient", "A layer's gradient; address 0 means none.",
                             py::module_local())
        .def(py::init([](const std::string& type, int64_t points, int64_t images, int64_t samples,
                         int64_t height, int64_t width, int64_t channels, int64_t shuffle,
                         const std::string& activation, uintptr_t gy, uintptr_t saved,
                         uintptr_t slopes, float slope, float scale, uintptr_t g, uintptr_t gb,
                         uintptr_t gs) {
                 return MaskGradient{type_of(type), points,          images,
                                     samples,       height,          width,
                                     channels,      shuffle,         activation_of(activation),
                                     at<void>(gy),  at<void>(saved), at<float>(slopes),
                                     slope,         scale,           at<void>(g),
                                     at<float>(gb), at<float>(gs),   nullptr};
             }),
             py::kw_only(), py::arg("type"), py::arg("points"), py::arg("images"),
             py::arg("samples"), py::arg("height"), py::arg("width"), py::arg("channels"),
             py::arg("shuffle"), py::arg("activation"), py::arg("gy"), py::arg("saved"),
             py::arg("slopes"), py::arg("slope"), py::arg("scale"), py::arg("g"), py::arg("gb"),
             py::arg("gs"))
        .def("room", &mask_gradient_room, "Floats of scratch that it needs.")
        .def(
            "run",
            [](MaskGradient& given, int device, uintptr_t stream, uintptr_t room) {
                given.room = at<float>(room);
                mask_gradient(where_is(device, stream), given);
            },
            py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("room"));
}

void define_convolution64(py::module_& module) {
    module.def(
        "convolution64",
        [](int device, uintptr_t stream, const std::string& type, int64_t points, int64_t samples,
           int64_t height, int64_t width, bool shared, bool residual_shared, uintptr_t x,
           uintptr_t gamma, uintptr_t bias, uintptr_t residual, uintptr_t y,
           const std::string& activation, float slope, float scale) {
            convolution64(where_is(device, stream),
                          {type_of(type), points, samples, height, width, shared, residual_shared,
                           at<void>(x), at<void>(gamma), at<float>(bias), at<void>(residual),
                           at<void>(y), activation_of(activation), slope, scale});
        },
        py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("type"), py::arg("points"),
        py::arg("samples"), py::arg("height"), py::arg("width"), py::arg("shared"),
        py::arg("residual_shared"), py::arg("x"), py::arg("gamma"), py::arg("bias"),
        py::arg("residual"), py::arg("y"), py::arg("activation"), py::arg("slope"),
        py::arg("scale"), "3x3 convolution of 64 channels to 64 with its epilogue, on sm_90.");
}

}  // namespace

PYBIND11_MODULE(_C_cuda, module) {
    module.doc() = "CUDA kernels of faigfast; they take addresses of dense arrays and sizes.";
    module.def("driver_version", &driver_version, "CUDA version of the driver, as 13000; 0: none.");
    module.def("runtime_version", &runtime_version, "CUDA version of this build, as 13000.");
    define_path_weights(module);
    define_score_reduction(module);
    define_loss_gradient(module);
    define_mask_gradient(module);
    define_convolution64(module);
}
