"""The GPU part alone: the CUDA extension and the standalone program, by nvcc.

    python -m scripts.gpu.bodies.build [PYTHON]   build here, to be carried to a machine of a GPU

It needs nvcc with its host compiler, Python's headers, and pybind11's, which torch brings. What was
built elsewhere from the same sources is taken where it runs, so that a build folder can be carried.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..children import output_of
from ..items import BUILT, ITEMS, ROOT
from ..outcomes import NotRunError
from ..staging import MODULE, PROGRAM, is_current, place_module, record_of

CSRC = ROOT / "csrc" / "cuda"
CHECKS = ROOT / "scripts" / "gpu" / "program"
FLAGS = ("-O3", "-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden")
HOPPER = ("-gencode=arch=compute_90a,code=sm_90a",)  # the kernels are for no other card
SECONDS = 38.0  # of one command
CARRIED_SECONDS = 900.0  # where nothing waits for it
HALF = "half-"  # folders of builds under way


class BuildError(Exception):
    """A compiler failed; the text has its last lines."""


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """Both products, at the same time; a failure of one leaves the other."""
    for folder in BUILT.glob(f"{HALF}*"):  # of a build that was killed
        shutil.rmtree(folder, ignore_errors=True)
    pool = ThreadPoolExecutor(2)
    under_way = {
        "extension": pool.submit(made_or_carried, MODULE, build_extension, loads),
        "conv64": pool.submit(made_or_carried, PROGRAM, build_program, starts),
    }
    return {name: future.result for name, future in under_way.items()}


def made_or_carried(
    name: str, build: Callable[[Path], None], works: Callable[[Path], bool], built: Path = BUILT
) -> dict[str, Any]:
    """Take a product of the same sources that works here, or build it.

    Raises
    ------
    BuildError
        If neither is possible.
    NotRunError
        If there is no nvcc and nothing was carried.
    """
    target = built / name
    if is_current(name, built) and works(target):
        place_module(built)
        return {"from": "carried, or built before"}
    if nvcc() is None:
        raise NotRunError("nvcc was not found, neither in CUDA_HOME nor on the path")
    began = time.monotonic()
    made(name, build, built)
    place_module(built)
    if not works(target):
        raise BuildError(f"{name} was built, but does not start here; see the log")
    return {"from": "built here", "seconds": round(time.monotonic() - began, 1)}


def made(name: str, build: Callable[[Path], None], built: Path) -> None:
    """Build a product in a folder of its own, put it in its place and record its sources."""
    sources = ITEMS["build"].sources_hash()
    with tempfile.TemporaryDirectory(prefix=HALF, dir=built) as folder:
        half = Path(folder) / name
        build(half)
        half.replace(built / name)
    record_of(name, built).write_text(json.dumps({"sources": sources}))


def loads(path: Path) -> bool:
    """Whether this Python loads the extension."""
    text = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('faigfast._C_cuda',"
        " sys.argv[1]); m = u.module_from_spec(s); s.loader.exec_module(m); m.runtime_version()"
    )
    return output_of([sys.executable, "-c", text, str(path)], SECONDS)[0] == 0


def starts(path: Path) -> bool:
    """Whether the program starts."""
    try:
        return output_of([str(path), "version"], SECONDS)[0] == 0
    except OSError:
        return False


def build_extension(target: Path, python: str = sys.executable, seconds: float = SECONDS) -> None:
    """Compile the CUDA kernels and what Python sees of them, in parallel, and link them."""
    sources = [*sorted(CSRC.glob("*.cu")), CSRC / "module.cpp"]
    include = [f"-I{path}" for path in includes(python)]
    objects = [target.parent / f"{path.name}.o" for path in sources]
    commands = [
        [*FLAGS, *(include if path.suffix == ".cpp" else HOPPER), "-c", str(path),
         "-o", str(made)]
        for path, made in zip(sources, objects, strict=True)
    ]  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(compile_with_nvcc, seconds=seconds), commands))
    compile_with_nvcc(["-shared", "-cudart=static", *map(str, objects), "-o", str(target)], seconds)


def build_program(target: Path, seconds: float = SECONDS) -> None:
    """Compile the standalone program with the convolution that it tests."""
    sources = [*sorted(CHECKS.glob("*.cu")), CSRC / "convolution64.cu"]
    objects = [target.parent / f"{path.name}.o" for path in sources]
    commands = [
        [*FLAGS, f"-I{CSRC}", *HOPPER, "-c", str(path), "-o", str(made)]
        for path, made in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(partial(compile_with_nvcc, seconds=seconds), commands))
    compile_with_nvcc(["-cudart=static", *map(str, objects), "-o", str(target)], seconds)


def compile_with_nvcc(words: Sequence[str], seconds: float) -> None:
    """Run nvcc.

    Raises
    ------
    BuildError
        If it fails or takes too long.
    """
    compiler = nvcc()
    assert compiler is not None
    code, output = output_of([compiler, *words], seconds)
    if code is None:
        raise BuildError(f"nvcc {words[-3]} took more than {seconds:g} s")
    if code != 0:
        lines = [line for line in output.strip().splitlines() if "ptxas info" not in line]
        raise BuildError(f"nvcc {words[-3]}: {' '.join(lines[-3:])[:300] or code}")


def includes(python: str) -> list[Path]:
    """Folders of Python's headers and of pybind11's, which torch has too."""
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    own = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    folders = [Path(own.strip())]
    for name in ("pybind11", "torch"):
        found_spec = find_spec(name)
        if found_spec and found_spec.origin:
            folder = Path(found_spec.origin).parent / "include"
            if (folder / "pybind11" / "pybind11.h").exists():
                return [*folders, folder]
    raise BuildError("pybind11's headers are in neither pybind11 nor torch")


def nvcc() -> str | None:
    """Path of nvcc: that of CUDA_HOME before one on the path."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    own = home and shutil.which("nvcc", path=os.path.join(home, "bin"))
    return own or shutil.which("nvcc")


def main() -> int:
    """Build both products, for another Python where one is named."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    ask = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    suffix = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    BUILT.mkdir(parents=True, exist_ok=True)
    products: dict[str, Callable[..., None]] = {
        f"_C_cuda{suffix.strip()}": partial(
            build_extension, python=python, seconds=CARRIED_SECONDS
        ),
        PROGRAM: partial(build_program, seconds=CARRIED_SECONDS),
    }
    for name, build in products.items():
        made(name, partial(build, seconds=CARRIED_SECONDS), BUILT)
        print(BUILT / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
