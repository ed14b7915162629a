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
    throw std::invalid_argument("type is '" + name + "'; expected fp16 or bf16");
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
    define_convolution64(module);
}
