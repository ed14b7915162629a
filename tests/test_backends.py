import dataclasses
from types import SimpleNamespace

import pytest
import torch

from faigfast import _extension, _extension_cuda
from faigfast.backends import backends, choose

NAMES = ["reference", "torch", "cpu", "triton", "cuda"]


def test_every_backend_has_a_reason():
    table = backends()
    assert list(table) == NAMES
    for name, backend in table.items():
        assert backend.name == name
        assert backend.reason
        with pytest.raises(dataclasses.FrozenInstanceError):
            backend.available = True
    here = ["reference", "torch"] + ["cpu"] * (_extension.module is not None)
    here += ["cuda"] * (_extension_cuda.problem() == "")
    assert [name for name in NAMES if table[name].available] == here


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


@pytest.mark.parametrize("name", ["fast", "", "CPU", None, 3, ["cpu"]])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match=r"backend is .*; expected one of auto, reference, torch"):
        choose(name, "cpu")


@pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
def test_cpu_kernels_are_refused_elsewhere():
    assert choose("cpu", "cpu") == ("cpu", "")
    with pytest.raises(ValueError, match="'cpu' cannot be used on cuda: its kernels run on CPUs"):
        choose("cpu", "cuda")


@pytest.mark.parametrize("name", ["triton"])
def test_absent_backends_say_why(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be used on cpu: not part of this"):
        choose(name, "cpu")


class Card:
    """Lets torch seem to have a GPU of some kind, and the extension a driver."""

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
    yield lambda **options: Card(monkeypatch, **options)
    monkeypatch.undo()
    _extension_cuda._card_problem.cache_clear()


PROBLEMS = {
    "torch is built for CUDA 13.0, but finds no device or driver": dict(available=False),
    "GTX 1080 has compute capability 6.1; expected 8.0 or more": dict(capability=(6, 1)),
    "the driver serves CUDA 12.4, but the kernels were built with CUDA 13.1": dict(driver=12040),
}


@pytest.mark.parametrize("why", PROBLEMS)
def test_cuda_says_what_is_wrong_and_what_serves_instead(why, card):
    card(**PROBLEMS[why])
    row = backends()["cuda"]
    assert not row.available and row.reason.startswith(why)
    assert row.reason.endswith("; torch serves instead") and "\n" not in row.reason
    with pytest.raises(ValueError, match=f"backend 'cuda' cannot be used on cuda: {why}"):
        choose("cuda", "cuda")


def test_cuda_where_there_is_a_card(card):
    card()
    row = backends()["cuda"]
    assert row.available and "not yet run on a device" in row.reason
    assert row.details["extension"] == "built with CUDA 13.1 for sm_80 and sm_90a"
    assert choose("cuda", "cuda:0") == ("cuda", "")
    assert choose("auto", "cuda")[0] == "torch"  # until it has run on a device
    with pytest.raises(ValueError, match="'cuda' cannot be used on cpu: tensors are on cpu"):
        choose("cuda", "cpu")


def test_cuda_without_the_extension(monkeypatch):
    monkeypatch.setattr(_extension_cuda, "module", None)
    monkeypatch.setattr(_extension_cuda, "missing", "no nvcc")
    assert backends()["cuda"].reason.startswith("the CUDA extension is missing: no nvcc")
    assert backends()["cuda"].details["extension"] == "missing: no nvcc"
