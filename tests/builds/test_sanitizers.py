"""The compiled kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

No Python is involved. NEON code runs in an emulator. The race tests use clang: its OpenMP runtime
reports barriers to ThreadSanitizer through the tool Archer. GCC's runtime gives false alarms.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.build
ROOT = Path(__file__).parents[2]
DRIVERS = sorted((ROOT / "tests" / "cpp").glob("*.cpp"))
READ_PREFETCHED = ["-include", ROOT / "tests" / "cpp" / "read_prefetched.h"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# As in setup.py. An instruction set of dispatch.cpp that is missing here fails to link.
X86 = platform.machine().lower() in ("x86_64", "amd64") and sys.platform.startswith("linux")
ISAS = {"portable": []} | ({"avx2": AVX2, "avx512": AVX512} if X86 else {})
AMX = [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]

ONE_LINE = """
#ifdef _OPENMP
#include <omp.h>
int main() { return omp_get_max_threads() == 0; }
#else
int main() {}
#endif
"""
# Some containers forbid the search for leaks. The drivers check kept memory.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}


def run(*command, **more):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT | more
    )


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """Command line of a compiler whose sanitized programs start here."""
    folder = tmp_path_factory.mktemp("probe")
    source, program = folder / "probe.cpp", folder / "probe"
    source.write_text(ONE_LINE)
    compilers = list(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")))
    if not compilers:
        pytest.skip("there is no C++ compiler")
    for cxx in compilers:
        # GCC's OpenMP gives no false alarm here. Without OpenMP the serial kernels are tested.
        for openmp in (["-fopenmp"], []):
            build = run(cxx, *SANITIZE, *openmp, source, "-o", program)
            if build.returncode == 0 and run(program).returncode == 0:
                return [cxx, "-std=c++17", "-g", "-O1", "-Wall", *SANITIZE, *openmp]
    pytest.skip(f"no sanitized program can be built and started with {', '.join(compilers)}")


def build(compiler, csrc, folder, isas=ISAS):
    """Compile all of csrc/cpu, every kernel once per instruction set, and link each driver."""
    x86 = ["-DFAIGFAST_X86", "-DFAIGFAST_AMX"] if len(isas) > 1 else []
    compiler = [*compiler, "-pthread", *x86]
    tasks = [(f"driver-{driver.stem}", driver, []) for driver in DRIVERS]
    for source in sorted((csrc / "cpu").glob("*.cpp")):
        if "namespace faigfast::FAIGFAST_ISA" in source.read_text():
            tasks += [
                (f"{source.stem}-{isa}", source, [f"-DFAIGFAST_ISA={isa}", *flags])
                for isa, flags in isas.items()
            ]
            if source.stem == "bf16_gradients" and len(isas) > 1:
                tasks.append((f"{source.stem}-amx", source, ["-DFAIGFAST_ISA=amx", *AMX]))
        else:
            tasks.append((source.stem, source, []))

    def compile_one(task):
        name, source, flags = task
        return run(*compiler, *flags, "-c", source, "-o", folder / f"{name}.o")

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
    return build([*compiler, *READ_PREFETCHED], ROOT / "csrc", tmp_path_factory.mktemp("sanitized"))


def clean(program, **environment):
    """Run a driver in every instruction set of this machine; the sanitizers must stay silent."""
    result = run(program, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    names = result.stdout.split()
    assert names[0] == "portable" and set(names) <= ISAS.keys()
    assert result.stderr == ""


@pytest.mark.parametrize("driver", [driver.stem for driver in DRIVERS])
def test_the_kernels_are_clean_and_right(driver, sanitized):
    clean(sanitized / driver)


def test_the_kernels_are_right_on_neon(tmp_path):
    cxx, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    missing = [name for name in (cxx, emulator) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    flags = ["-std=c++17", "-O2", "-Wall", "-Werror", "-fopenmp", "-static", *READ_PREFETCHED]
    folder = build([cxx, *flags], ROOT / "csrc", tmp_path, {"portable": []})
    for driver in DRIVERS:
        result = run(emulator, folder / driver.stem)
        assert (result.returncode, result.stdout.split(), result.stderr) == (0, ["portable"], "")


def test_the_cuda_kernel_keeps_to_its_memory(compiler, tmp_path):
    """The emulation runs each thread as a fiber, on buffers of exactly the needed size."""
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
    assert result.stdout.split() == ["convolution64"]
    # The sanitizer warns of fibers (makecontext), which it mostly supports.
    others = [line for line in result.stderr.splitlines() if "makecontext" not in line]
    assert not others


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind")
def test_the_convolution_is_clean_under_valgrind(tmp_path):
    cxx = next(filter(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")), None)
    if cxx is None:
        pytest.skip("there is no C++ compiler")
    folder = build([cxx, "-std=c++17", "-g", "-O1", *READ_PREFETCHED], ROOT / "csrc", tmp_path)
    # Valgrind has no AVX-512.
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


# One thread writes and the others read, with or without a barrier in between.
TWO_THREADS = """
int main(int more, char**) {
    int values[64] = {}, sums[64] = {};
#pragma omp parallel num_threads(2)
    {
#pragma omp single nowait
        for (int i = 0; i < 64; ++i) values[i] = more;
        BARRIER
#pragma omp for
        for (int i = 0; i < 64; ++i) sums[i] = values[63 - i];
    }
    return sums[0] < 0;
}
"""
RACE = "WARNING: ThreadSanitizer: data race"
# Every barrier and lock, by file and number in it; races.h can skip each one at run time.
LOCK = "std::lock_guard<std::mutex> lock(mutex);"
BARRIER = "#pragma omp barrier"
LEAVE_OUT = {
    LOCK: "std::unique_lock<std::mutex> lock(mutex, std::defer_lock);\n"
    '    if (!std::getenv("{name}")) lock.lock();',
    BARRIER: 'if (!std::getenv("{name}")) {{\n#pragma omp barrier\n}}',
}
LEFT_OUT = ["convolution_0", "convolution_1", "image_gradients_0", "memory_0", "memory_1"]


@pytest.fixture(scope="module")
def races(tmp_path_factory):
    """Clang with ThreadSanitizer, and environment variables that load Archer."""
    cxx = shutil.which("clang++")
    if cxx is None:
        pytest.skip("there is no clang++, with whose OpenMP runtime data races are looked for")
    folder = tmp_path_factory.mktemp("races")
    archer = run(cxx, "-print-file-name=libarcher.so").stdout.strip()
    environment = {
        "OMP_TOOL_LIBRARIES": archer,
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
    }
    command = [cxx, "-std=c++17", "-g", "-O1", "-fsanitize=thread", "-fopenmp=libomp"]
    source, program = folder / "probe.cpp", folder / "probe"
    for barrier, code in ((BARRIER, 0), ("", 66)):
        source.write_text(TWO_THREADS.replace("BARRIER", barrier))
        result = run(*command, source, "-o", program)
        if result.returncode == 0:
            result = run(program, ARCHER_OPTIONS="verbose=1", **environment)
        if result.returncode != code or "Archer detected" not in result.stdout:
            reason = result.stderr.strip() or "no word of Archer"
            pytest.skip(f"{cxx} has no ThreadSanitizer with libomp and Archer here: {reason}")
    return [*command, "-include", ROOT / "tests" / "cpp" / "races.h"], environment


@pytest.fixture(scope="module")
def raced(races, tmp_path_factory):
    return build(races[0], ROOT / "csrc", tmp_path_factory.mktemp("raced"))


@pytest.mark.parametrize("driver", [driver.stem for driver in DRIVERS])
def test_the_kernels_have_no_data_races(driver, races, raced):
    clean(raced / driver, **races[1])


@pytest.fixture(scope="module")
def leaky(races, tmp_path_factory):
    """Drivers built from a copy in which each barrier and lock can be skipped on request."""
    folder = tmp_path_factory.mktemp("leaky")
    csrc, names = shutil.copytree(ROOT / "csrc", folder / "csrc"), []
    for path in sorted(p for p in (csrc / "cpu").rglob("*") if p.is_file()):
        parts = re.split(f"({'|'.join(map(re.escape, LEAVE_OUT))})", path.read_text())
        for i in range(1, len(parts), 2):
            names.append(f"{path.stem}_{i // 2}")
            parts[i] = LEAVE_OUT[parts[i]].format(name=names[-1])
        path.write_text("#include <cstdlib>\n" + "".join(parts))
    assert set(LEFT_OUT) <= set(names)
    build(races[0], csrc, folder)
    return folder / "convolution", run(folder / "score_reduction", **races[1]).stdout.split()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_missing_barrier_or_lock_would_be_seen(name, isa, races, leaky):
    program, here = leaky
    if isa not in here:
        pytest.skip(f"this processor has no {isa}")
    options = races[1]["TSAN_OPTIONS"] + ":halt_on_error=1"
    environment = races[1] | {"TSAN_OPTIONS": options, name: "1"}
    result = run(program, *(other for other in ISAS if other != isa), **environment)
    assert result.returncode and RACE in result.stderr, result.stdout + result.stderr
