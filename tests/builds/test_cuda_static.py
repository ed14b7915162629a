"""Checks of the CUDA kernels that need no device: they compile, and to which instructions."""

import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "cuda_resources.py"


def load():
    spec = spec_from_file_location("cuda_resources", PATH)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


resources = load()
pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(
        resources.nvcc() is None, reason="nvcc was not found, neither in CUDA_HOME nor on the path"
    ),
]

# A block must fit a multiprocessor, which has 65536 registers.
MOST = 168


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cubins")


@pytest.fixture(scope="module")
def reports(folder):
    return resources.compile_all(folder)


@pytest.fixture(scope="module")
def kernels(reports):
    return resources.kernels(reports)


def test_every_file_is_compiled_for_every_card(reports, kernels):
    files = {path.stem for path in resources.CSRC.glob("*.cu")}
    assert set(reports) == {(file, target) for file in files for target in resources.TARGETS}
    assert {kernel.file for kernel in kernels} == files - {"device"}  # device.cu has no kernel


def test_nothing_is_spilled(kernels):
    assert not [kernel for kernel in kernels if kernel.spills or kernel.stack]


def test_registers_leave_room(kernels):
    for kernel in kernels:
        assert 0 < kernel.registers <= MOST, kernel


def test_nothing_was_warned_of(reports):
    for text in reports.values():
        lines = [line for line in text.splitlines() if "warning" in line.lower()]
        assert not lines  # the compiler warns when it ignores setmaxnreg or serialises wgmma


def test_hoppers_instructions_are_there(folder, reports):
    counts, where = resources.instructions(folder)
    assert all(counts.values()), (where, counts)
    if where == "machine code":
        # Two types × two strips of a tile × nine taps × four steps of sixteen channels.
        assert counts["HGMMA"] == 2 * 2 * 9 * 4
        # Loads of weights (the nine taps may be a loop), halo tile and residual; stores of results.
        assert counts["UTMALDG"] >= 2 * 3 and counts["UTMASTG"] >= 2


def test_a_spill_would_be_seen(tmp_path, monkeypatch):
    (tmp_path / "large.cu").write_text(
        "__global__ __launch_bounds__(1024) void large(float* a, int n) {\n"
        "    float v[128];\n"
        "    for (int i = 0; i < 128; ++i) v[i] = a[i * n];\n"
        "    for (int k = 0; k < n; ++k)\n"
        "        for (int i = 0; i < 128; ++i) v[i] += v[(i * 7 + 3) % 128] * a[k];\n"
        "    for (int i = 0; i < 128; ++i) a[i * n] = v[i];\n"
        "}\n"
    )
    monkeypatch.setattr(resources, "CSRC", tmp_path)
    monkeypatch.setattr(resources, "TARGETS", {"sm_80": "compute_80"})
    (kernel,) = resources.kernels(resources.compile_all(tmp_path))
    assert kernel.name == "large" if shutil.which("c++filt") else "large" in kernel.name
    assert kernel.spills or kernel.stack
