import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from faigfast.backend.catalogue import backends, choose
from faigfast.backend.cpu import extension as _extension
from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu import triton_support as _triton
from faigfast.backend.precision import check_precision

NAMES = ["reference", "torch", "cpu", "triton", "cuda"]


def test_every_backend_has_a_reason():
    by_name = backends()
    assert list(by_name) == NAMES
    for name, backend in by_name.items():
        assert backend.name == name
        assert backend.reason
        with pytest.raises(dataclasses.FrozenInstanceError):
            backend.available = True
    here = ["reference", "torch"] + ["cpu"] * (_extension.module is not None)
    here += ["triton", "cuda"] * (not _triton.refuses())
    assert [name for name in NAMES if by_name[name].available] == here


def test_it_prints_as_a_table():
    text = str(backends())
    assert text == repr(backends())
    for name in NAMES:
        assert f"\n{name} " in f"\n{text}"
    assert _extension.describe() in text


def test_the_extension_is_described(monkeypatch):
    if _extension.module is not None:
        assert "portable" in _extension.describe()
        monkeypatch.setenv("FAIGFAST_ISA", "portable")
        assert _extension.describe().endswith("portable in use")
    monkeypatch.setattr(_extension, "module", None)
    monkeypatch.setattr(_extension, "missing", "no compiler")
    cpu = backends()["cpu"]
    assert cpu.details["extension"] == "missing: no compiler" and not cpu.available
    name, why = choose("auto", "cpu")
    assert name == "torch" and "no compiler" in why
    with pytest.raises(ValueError, match="'cpu' cannot be used on cpu: the compiled extension"):
        choose("cpu", "cpu")


def test_choice():
    name, why = choose("auto", "cpu")
    assert name == ("torch" if _extension.module is None else "cpu")
    assert name in why
    assert choose("auto", "cuda")[0] == "torch"
    for name in ("reference", "torch"):
        assert choose(name, "cpu") == (name, "")


def test_a_backend_that_is_asked_for_does_not_import_another():
    code = "import sys; from faigfast.backend.catalogue import choose; choose('torch', 'cpu'); "
    code += "assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_points_in_one_pass_are_claimed_where_they_run_so(monkeypatch):
    monkeypatch.setattr(
        _extension,
        "module",
        SimpleNamespace(compiled=lambda: [], isa=lambda: "", amx=lambda: False),
    )
    by_name = backends()
    assert "many points of the line in one pass" in by_name["cpu"].reason
    assert "on a CPU one image at one point of the line at a time" in by_name["torch"].reason


@pytest.mark.parametrize("name", ["fast", "", "CPU", None, 3, ["cpu"]])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match=r"backend is .*; expected one of auto, reference, torch"):
        choose(name, "cpu")


@pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
def test_cpu_kernels_are_refused_elsewhere():
    assert choose("cpu", "cpu") == ("cpu", "")
    with pytest.raises(ValueError, match="'cpu' cannot be used on cuda: its kernels run on CPUs"):
        choose("cpu", "cuda")


class TritonCard:
    """Fakes a version of Triton and a GPU."""

    def __init__(self, monkeypatch, version="3.6.0", gpu="", capability=(9, 0)):
        for function in (_triton.missing, _triton.no_gpu):
            function.cache_clear()
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        monkeypatch.setattr(_triton, "version", lambda: version)
        monkeypatch.setattr(_triton, "import_module", lambda name: None)
        monkeypatch.setattr(_triton, "no_gpu", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


@pytest.fixture(autouse=True)
def forget():
    yield
    _triton.missing.cache_clear()


@pytest.mark.parametrize(
    "card, device, words",
    [
        (dict(version=""), "cuda", "Triton is not installed"),
        (dict(version="3.4.1"), "cuda", "Triton is 3.4.1; the kernels need 3.5 or later"),
        (dict(gpu="torch finds no GPU: driver too old"), "cuda", "driver too old"),
        (dict(capability=(7, 5)), "cuda:0", r"a Tesla T4 \(sm_75\); the kernels need sm_80"),
        (dict(), "cpu", "its kernels run on GPUs, and the networks are on cpu"),
    ],
)
def test_triton_is_refused_with_what_was_found_and_what_serves(card, device, words, monkeypatch):
    TritonCard(monkeypatch, **card)
    with pytest.raises(ValueError, match=f"'triton' cannot be used on {device}: .*{words}") as e:
        choose("triton", device)
    assert f"'auto' takes '{choose('auto', device)[0]}' here" in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match=f"precision is 'tf32', which only.*triton has: .*{words}"):
        choose("auto", device, "tf32")
    if device != "cpu":
        assert not backends()["triton"].available
        name, why = choose("auto", device, "fp16")
        assert name == "torch" and "since triton cannot serve" in why


def test_triton_is_chosen_for_short_precisions_on_a_gpu(monkeypatch):
    TritonCard(monkeypatch)
    assert backends()["triton"].available
    assert choose("triton", "cuda") == ("triton", "")
    for precision in ("fp16", "bf16", "tf32", "bf16x3"):
        name, why = choose("auto", "cuda", precision)
        assert name == "triton" and precision in why
    assert choose("auto", "cuda")[0] == choose("auto", "cuda", "fp64")[0] == "torch"


def test_a_broken_triton_is_told(monkeypatch):
    TritonCard(monkeypatch)

    def fails(name):
        raise ImportError("no libtriton.so\nand more")

    monkeypatch.setattr(_triton, "import_module", fails)
    assert _triton.refuses() == "Triton 3.6.0 cannot be loaded: no libtriton.so"


@pytest.mark.parametrize("precision", ["tf32", "bf16x3"])
def test_precisions_of_triton_are_refused_elsewhere(precision):
    check_precision(precision, "triton")
    with pytest.raises(
        ValueError, match=f"precision is '{precision}'.*backend is 'torch'; expected"
    ):
        check_precision(precision, "torch")


class CudaCard:
    """Fakes a GPU of some kind, and a driver for the extension."""

    def __init__(self, monkeypatch, capability=(9, 0), driver=13000, available=True):
        extension = SimpleNamespace(driver_version=lambda: driver, runtime_version=lambda: 13010)
        monkeypatch.setattr(_extension_cuda, "module", extension)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        for name, value in (
            ("is_available", available),
            ("device_count", 1),
            ("current_device", 0),
            ("get_device_capability", capability),
            ("get_device_name", "GTX 1080"),
        ):
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
        _extension_cuda._card_problem.cache_clear()


@pytest.fixture
def card(monkeypatch):
    yield lambda **options: CudaCard(monkeypatch, **options)
    monkeypatch.undo()
    _extension_cuda._card_problem.cache_clear()


PROBLEMS = {
    "torch is built for CUDA 13.0, but finds no device or driver": dict(available=False),
    "GTX 1080 has compute capability 8.0; expected 9.0 (Hopper)": dict(capability=(8, 0)),
    "the driver serves CUDA 12.4, but the kernels were built with CUDA 13.1": dict(driver=12040),
}


@pytest.mark.parametrize("why", PROBLEMS)
def test_the_hopper_convolution_says_what_is_wrong(why, card):
    card(**PROBLEMS[why])
    assert _extension_cuda.problem().startswith(why)
    assert _extension_cuda.problem("cuda:0").startswith(why)


def test_the_hopper_convolution_where_there_is_a_card(card):
    card()
    assert not _extension_cuda.problem() and not _extension_cuda.problem("cuda:0")
    assert _extension_cuda.problem("cpu") == "tensors are on cpu"
    assert backends()["cuda"].details["extension"] == "built with CUDA 13.1 for sm_90a"


def test_cuda_needs_triton_and_a_card_alone(monkeypatch):
    monkeypatch.setattr(_extension_cuda, "module", None)
    monkeypatch.setattr(_extension_cuda, "missing", "no nvcc")
    monkeypatch.setattr(_triton, "refuses", lambda device=None: "")
    assert backends()["cuda"].available and "cuDNN" in backends()["cuda"].reason
    assert backends()["cuda"].details["extension"] == "missing: no nvcc"
    assert choose("cuda", "cuda:0") == ("cuda", "")
    assert choose("auto", "cuda")[0] == "torch"
    monkeypatch.setattr(_triton, "refuses", lambda device=None: "Triton is not installed")
    assert backends()["cuda"].reason == "Triton is not installed"
    with pytest.raises(ValueError, match="'cuda' cannot be used on cuda: Triton is not installed"):
        choose("cuda", "cuda")
