"""Build faigfast: the packages and, where compilers are found, its two extensions.

`faigfast._C` are the CPU kernels, `faigfast._C_cuda` the CUDA kernels.

The environment variable FAIGFAST_BUILD says what must be built: `auto` (whatever can be and can
run here, the default), `cpu` (the CPU kernels, or the build fails), `cuda` (those and the CUDA
kernels, or the build fails) or `none`. What was built, or why nothing was, is left beside the
package in `_build_info.json`.

Under `auto` the CUDA kernels are built where there are nvcc and NVIDIA's driver: without a driver
nothing of them could run, and an environment without a GPU is not kept waiting.
"""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import find_packages, setup
from setuptools.errors import CCompilerError, ExecError, PlatformError

MODES = ("auto", "cpu", "cuda", "none")
MODE = os.environ.get("FAIGFAST_BUILD") or "auto"
if MODE not in MODES:
    raise SystemExit(f"FAIGFAST_BUILD is {MODE!r}; expected one of {', '.join(MODES)}")

# Compiled once per instruction set, each time into a namespace of that name.
KERNELS = [
    f"csrc/cpu/{name}.cpp"
    for name in (
        "attention",
        "averaged_activation",
        "bf16_gradients",
        "convolution",
        "one_channel",
        "peak",
        "score_reduction",
        "squared_error",
        "weight_gradient",
    )
]
AVX2 = ["-mavx2", "-mfma"]
ISAS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64") and sys.platform.startswith("linux"):
    ISAS["avx2"] = AVX2
    ISAS["avx512"] = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# With tiles of bfloat16, for one kernel alone: its other instruction sets emulate them.
AMX_KERNEL = "csrc/cpu/bf16_gradients.cpp"
AMX = [*ISAS.get("avx512", ()), "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
AMX_LINE = "#include <immintrin.h>\nint main() { _tile_zero(0); }\n"
OPENMP_LINE = "#include <omp.h>\nint main() { return omp_get_max_threads() == 0; }\n"

# The default compiler flags of Python belong to its own build; these come after them.
FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=fast"]
if len(ISAS) > 1:
    FLAGS.append("-DFAIGFAST_X86")

ONCE = (
    "amx",
    "denormals",
    "dispatch",
    "heap",
    "memory",
    "streaming",
)  # not once per instruction set
CUDA = ("convolution64", "device")
TARGET = "-gencode=arch=compute_90a,code=sm_90a"  # Hopper alone; Triton serves the others
NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden"]
FAILURES = (CCompilerError, ExecError, PlatformError, OSError)


def nvcc():
    """Path of nvcc, or None: that of CUDA_HOME before one on the path."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return (home and shutil.which("nvcc", path=os.path.join(home, "bin"))) or shutil.which("nvcc")


def no_cuda():
    """Why the CUDA kernels are not to be built; empty where they are."""
    if MODE in ("cpu", "none"):
        return f"built with FAIGFAST_BUILD={MODE}"
    if nvcc() is None:
        return "nvcc was not found, neither in CUDA_HOME nor on the path"
    if MODE == "auto":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "there is no NVIDIA driver here; FAIGFAST_BUILD=cuda builds without one"
    return ""


class BuildExtension(build_ext):
    """Compile the kernels once per instruction set or card; record what was built, or why not."""

    def run(self):
        """Build the extensions, then write the record beside the package."""
        cuda = {"extension": False, "reason": no_cuda() or None}
        self.info = {"mode": MODE, "extension": False, "reason": None, "cuda": cuda}
        if MODE == "none":
            self.info["reason"] = "built with FAIGFAST_BUILD=none"
            self.extensions = []
        elif cuda["reason"] and MODE == "cuda":
            raise SystemExit(f"FAIGFAST_BUILD is 'cuda', but {cuda['reason']}")
        elif cuda["reason"]:
            self.extensions = self.extensions[:1]
        super().run()
        root = Path(self.get_finalized_command("build_py").get_package_dir("faigfast"))
        if not self.inplace:
            root = Path(self.build_lib) / "faigfast"
        for name, info in (("_C", self.info), ("_C_cuda", cuda)):
            for module in root.glob(f"{name}.*.so") if not info["extension"] else ():
                module.unlink()  # of an earlier build: it would contradict the record
        root.mkdir(parents=True, exist_ok=True)
        (root / "_build_info.json").write_text(json.dumps(self.info, indent=1) + "\n")

    def build_extensions(self):
        """Build each; without working compilers `auto` goes on without it."""
        for ext, info in zip(list(self.extensions), (self.info, self.info["cuda"]), strict=False):
            build = self.build_cuda if info is self.info["cuda"] else self.build_extension
            try:
                build(ext)
            except FAILURES as error:
                if MODE in ("cpu", "cuda"):
                    raise
                info["reason"] = f"the build of the extension failed: {error}"
                self.extensions.remove(ext)
                self.warn(f"{ext.name}: {info['reason']}; going on without it")

    def build_cuda(self, ext):
        """Compile the CUDA kernels and what Python sees of them, in parallel; link by nvcc."""
        folder = Path(self.build_temp) / "cuda"
        folder.mkdir(parents=True, exist_ok=True)

        def compile_one(name):
            path = str(folder / f"{name}.o")
            run_nvcc([nvcc(), *NVCC_FLAGS, TARGET, "-c", f"csrc/cuda/{name}.cu", "-o", path])
            return path

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, CUDA))
        objects += self.compiler.compile(
            ext.sources,
            output_dir=str(folder),
            include_dirs=ext.include_dirs,
            extra_postargs=[*FLAGS, *ext.extra_compile_args],
        )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        run_nvcc([nvcc(), "-shared", "-cudart=static", *objects, "-o", str(target)])
        version = run_nvcc([nvcc(), "--version"])
        self.info["cuda"].update(
            extension=True,
            compiler=next((line for line in version.splitlines() if "release" in line), "nvcc"),
            flags=[*NVCC_FLAGS, TARGET],
        )

    def build_extension(self, ext):
        """Compile every source and every (kernel, instruction set), in parallel, and link."""
        openmp = ["-fopenmp"] if self.builds(OPENMP_LINE, ["-fopenmp"]) else []
        amx = len(ISAS) > 1 and self.builds(AMX_LINE, AMX)
        defines = ["-DFAIGFAST_AMX"] if amx else []
        flags = [*FLAGS, *defines, *openmp, *ext.extra_compile_args]
        tasks = [(source, "base", []) for source in ext.sources]
        tasks += [
            (source, isa, [f"-DFAIGFAST_ISA={isa}", *isa_flags])
            for source in KERNELS
            for isa, isa_flags in ISAS.items()
        ]
        if amx:
            tasks.append((AMX_KERNEL, "amx", ["-DFAIGFAST_ISA=amx", *AMX]))

        def compile_one(task):
            source, folder, extra = task
            return self.compiler.compile(
                [source],
                output_dir=os.path.join(self.build_temp, folder),
                include_dirs=ext.include_dirs,
                extra_postargs=[*flags, *extra],
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [path for paths in pool.map(compile_one, tasks) for path in paths]
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(
            objects, target, extra_postargs=[*openmp, *ext.extra_link_args], target_lang="c++"
        )
        self.info.update(
            extension=True,
            compiler=" ".join(getattr(self.compiler, "compiler_cxx", None) or ["unknown"]),
            flags=flags,
            instruction_sets=list(ISAS),
            openmp=bool(openmp),
            amx=amx,
        )

    def builds(self, program, flags):
        """Whether a program of one line can be built with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "program.cpp"
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=flags
                )
                self.compiler.link_executable(
                    objects, "program", folder, extra_postargs=flags, target_lang="c++"
                )
            except (CCompilerError, ExecError, OSError):
                return False
        return True


def run_nvcc(command):
    """Run nvcc and give what it says; raise CCompilerError with the end of that."""
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if found.returncode:
        lines = [line for line in found.stdout.splitlines() if "ptxas info" not in line]
        raise CCompilerError(f"{' '.join(command)} failed: {' '.join(lines[-5:])}")
    return found.stdout


setup(
    packages=[*find_packages(include=["faigfast", "faigfast.*"]), "faigfast.kernels"],
    # Never a bare `kernels` at the top level: that name belongs to others.
    package_dir={"faigfast.kernels": "kernels"},
    package_data={
        "faigfast": [
            "**/*.css",
            "**/*.jinja",
            "**/*.js",
            "**/*.json",
            "**/*.jsonl",
            "**/*.mplstyle",
            "**/*.safetensors",
            "**/*.txt",
            "py.typed",
        ]
    },
    exclude_package_data={"": ["_build_info.json"]},  # the one written above, not an older one
    ext_modules=[
        Pybind11Extension(
            "faigfast._C",
            [
                "csrc/module.cpp",
                "csrc/tensor.cpp",
                *(f"csrc/cpu/{name}.cpp" for name in ONCE),
            ],
            cxx_std=17,
        ),
        Pybind11Extension("faigfast._C_cuda", ["csrc/cuda/module.cpp"], cxx_std=17),
    ],
    cmdclass={"build_ext": BuildExtension},
    zip_safe=False,
)
