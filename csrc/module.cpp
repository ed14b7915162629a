// faigfast._C: what Python sees. Tensors arrive as addresses and sizes; the Python side has checked
// them and keeps them alive.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/dispatch.h"

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
    // The environment belongs to the interpreter, so it is read before the lock is given up.
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

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() =
        "Compiled kernels of faigfast; they take addresses of contiguous arrays and sizes.";
    module.def(
        "isa", [] { return faigfast::name(faigfast::choose()); }, "The instruction set in use.");
    module.def("compiled", [] { return names(faigfast::compiled()); });
    module.def("supported", [] { return names(faigfast::supported()); });
    define_score_reduction<float>(module, "score_reduction_float32");
    define_score_reduction<double>(module, "score_reduction_float64");
}
