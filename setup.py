"""Build faigfast: the packages and, where a compiler is found, the extension `faigfast._C`.

The environment variable FAIGFAST_BUILD says what must be built: `auto` (whatever can be, the
default), `cpu` (the CPU kernels, or the build fails), `cuda` or `none`. What was built, or why
nothing was, is left beside the package in `_build_info.json`.
"""

import json
import os
import platform
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
if MODE == "cuda":
    raise SystemExit("FAIGFAST_BUILD is 'cuda', but this version of faigfast has no CUDA kernels")

# Compiled once per instruction set, each time into a namespace of that name.
KERNELS = [
    f"csrc/cpu/{name}.cpp" for name in ("convolution", "peak", "score_reduction", "weight_gradient")
]
AVX2 = ["-mavx2", "-mfma"]
ISAS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64") and sys.platform.startswith("linux"):
    ISAS["avx2"] = AVX2
    ISAS["avx512"] = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# The default compiler flags of Python belong to its own build; these come after them.
FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=fast"]
if len(ISAS) > 1:
    FLAGS.append("-DFAIGFAST_X86")


class BuildExtension(build_ext):
    """Compile the kernels once per instruction set; record what was built, or why not."""

    def run(self):
        """Build the extension, then write the record beside the package."""
        self.info = {"mode": MODE, "extension": False, "reason": None}
        if MODE == "none":
            self.info["reason"] = "built with FAIGFAST_BUILD=none"
            self.extensions = []
        super().run()
        root = Path(self.get_finalized_command("build_py").get_package_dir("faigfast"))
        if not self.inplace:
            root = Path(self.build_lib) / "faigfast"
        for module in root.glob("_C.*.so") if not self.info["extension"] else ():
            module.unlink()  # of an earlier build: it would contradict the record
        root.mkdir(parents=True, exist_ok=True)
        (root / "_build_info.json").write_text(json.dumps(self.info, indent=1) + "\n")

    def build_extensions(self):
        """Build `faigfast._C`; without a working compiler `auto` goes on without it."""
        try:
            super().build_extensions()
        except (CCompilerError, ExecError, PlatformError, OSError) as error:
            if MODE == "cpu":
                raise
            self.info["reason"] = f"the build of the extension failed: {error}"
            self.extensions = []
            self.warn(f"{self.info['reason']}; going on without it")

    def build_extension(self, ext):
        """Compile every source and every (kernel, instruction set), in parallel, and link."""
        openmp = self.openmp_flags()
        flags = [*FLAGS, *openmp, *ext.extra_compile_args]
        tasks = [(source, "base", []) for source in ext.sources]
        tasks += [
            (source, isa, [f"-DFAIGFAST_ISA={isa}", *isa_flags])
            for source in KERNELS
            for isa, isa_flags in ISAS.items()
        ]

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
        )

    def openmp_flags(self):
        """Return the flags of OpenMP where a program of one line can be built with them."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "openmp.cpp"
            source.write_text(
                "#include <omp.h>\nint main() { return omp_get_max_threads() == 0; }\n"
            )
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=["-fopenmp"]
                )
                self.compiler.link_executable(
                    objects, "openmp", folder, extra_postargs=["-fopenmp"], target_lang="c++"
                )
            except (CCompilerError, ExecError, OSError):
                return []
        return ["-fopenmp"]


setup(
    packages=[*find_packages(include=["faigfast", "faigfast.*"]), "faigfast.kernels"],
    # Never a bare `kernels` at the top level: that name belongs to others.
    package_dir={"faigfast.kernels": "kernels"},
    package_data={
        "faigfast": ["**/*.json", "**/*.jsonl", "**/*.safetensors", "**/*.txt", "py.typed"]
    },
    exclude_package_data={"": ["_build_info.json"]},  # the one written above, not an older one
    ext_modules=[
        Pybind11Extension(
            "faigfast._C",
            ["csrc/module.cpp", "csrc/tensor.cpp", "csrc/cpu/dispatch.cpp", "csrc/cpu/memory.cpp"],
            cxx_std=17,
        )
    ],
    cmdclass={"build_ext": BuildExtension},
    zip_safe=False,
)
