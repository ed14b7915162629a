import dataclasses

import pytest

from faigfast import _extension
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


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_absent_backends_say_why(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be used on cpu: not part of this"):
        choose(name, "cpu")
