"""The compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer, without Python."""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DRIVERS = sorted((ROOT / "tests" / "cpp").glob("*.cpp"))
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# As in setup.py; an instruction set that dispatch.cpp knows and this does not fails to link.
X86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform.startswith("linux")
ISAS = {"portable": []} | ({"avx2": AVX2, "avx512": AVX512} if X86 else {})

ONE_LINE = """
#ifdef _OPENMP
#include <omp.h>
int main() { return omp_get_max_threads() == 0; }
#else
int main() {}
#endif
"""
# The search for leaks is forbidden in some containers; what is kept is asked for by the drivers.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}


def run(*command):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """A compiler that builds sanitized programs which start, with the flags of that."""
    folder = tmp_path_factory.mktemp("probe")
    source, program = folder / "probe.cpp", folder / "probe"
    source.write_text(ONE_LINE)
    found = list(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")))
    if not found:
        pytest.skip("there is no C++ compiler")
    for cxx in found:
        # GCC's OpenMP gives no false alarm; a compiler without any checks the serial kernels.
        for openmp in (["-fopenmp"], []):
            build = run(cxx, *SANITIZE, *openmp, source, "-o", program)
            if build.returncode == 0 and run(program).returncode == 0:
                return [cxx, "-std=c++17", "-g", "-O1", "-Wall", *SANITIZE, *openmp]
    pytest.skip(f"no sanitized program can be built and started with {', '.join(found)}")


def build(compiler, csrc, folder):
    """Compile all of csrc/cpu, every kernel once per instruction set, and link each driver."""
    define = ["-DFAIGFAST_X86"] if X86 else []
    tasks = [(f"driver-{driver.stem}", driver, []) for driver in DRIVERS]
    for source in sorted((csrc / "cpu").glob("*.cpp")):
        if "namespace faigfast::FAIGFAST_ISA" in source.read_text():
            tasks += [
                (f"{source.stem}-{isa}", source, [f"-DFAIGFAST_ISA={isa}", *flags])
                for isa, flags in ISAS.items()
            ]
        else:
            tasks.append((source.stem, source, []))

    def compile_one(task):
        name, source, flags = task
        return run(*compiler, *define, *flags, "-c", source, "-o", folder / f"{name}.o")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(compile_one, tasks):
            assert result.returncode == 0, result.stderr
    kernels = [folder / f"{name}.o" for name, *_ in tasks if not name.startswith("driver")]
    for driver in DRIVERS:
        objects = [folder / f"driver-{driver.stem}.o", *kernels]
        result = run(*compiler, *objects, "-o", folder / driver.stem)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def sanitized(compiler, tmp_path_factory):
    return build(compiler, ROOT / "csrc", tmp_path_factory.mktemp("sanitized"))


@pytest.mark.parametrize("driver", [driver.stem for driver in DRIVERS])
def test_the_kernels_are_clean_and_right(driver, sanitized):
    result = run(sanitized / driver)
    assert result.returncode == 0, result.stdout + result.stderr
    names = result.stdout.split()
    assert names[0] == "portable" and set(names) <= ISAS.keys()
    assert result.stderr == ""


def test_the_cuda_kernels_keep_to_their_memory(compiler, tmp_path):
    """Emulated, each thread a fiber, on memory of exactly their sizes."""
    folder = ROOT / "tests" / "cpp" / "cuda"
    emulate = ["-include", folder / "emulated_hopper.h", "-Wno-unknown-pragmas", "-x", "c++"]
    sources = [folder / "driver.cpp", *sorted((ROOT / "csrc" / "cuda").glob("*.cu"))]
    objects = [tmp_path / f"{source.stem}.o" for source in sources]

    def compile_one(task):
        source, path = task
        return run(*compiler, "-O2", *emulate, "-c", source, "-o", path)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(compile_one, zip(sources, objects, strict=True)):
            assert result.returncode == 0, result.stderr
    assert run(*compiler, *objects, "-o", tmp_path / "driver").returncode == 0
    result = run(tmp_path / "driver")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == [
        "path_weights", "score_reduction", "loss_gradient", "mask_gradient", "convolution64"
    ]  # fmt: skip
    # Of fibers, which it knows in the main.
    others = [line for line in result.stderr.splitlines() if "makecontext" not in line]
    assert not others


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind")
def test_the_convolution_is_clean_under_valgrind(tmp_path):
    cxx = next(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")), None)
    if cxx is None:
        pytest.skip("there is no C++ compiler")
    folder = build([cxx, "-std=c++17", "-g", "-O1"], ROOT / "csrc", tmp_path)
    # It knows no AVX-512.
    result = run("valgrind", "-q", "--error-exitcode=7", folder / "convolution", "avx512")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "portable" in result.stdout.split()


def test_a_read_past_the_end_would_be_seen(compiler, tmp_path):
    source = tmp_path / "past.cpp"
    source.write_text(
        "#include <cstdlib>\n"
        "int main(int words, char**) {\n"
        "    float* p = (float*)std::calloc(words, 4);\n"
        "    return p[words] != 0;\n"
        "}\n"
    )
    assert run(*compiler, source, "-o", tmp_path / "past").returncode == 0
    result = run(tmp_path / "past")
    assert result.returncode != 0 and "heap-buffer-overflow" in result.stderr
