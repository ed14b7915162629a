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
    assert [name for name in NAMES if table[name].available] == ["reference", "torch"]


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
    assert backends()["cpu"].details["extension"] == "missing: no compiler"


def test_choice():
    name, why = choose("auto", "cpu")
    assert name == "torch"
    assert "torch" in why
    for name in ("reference", "torch"):
        assert choose(name, "cpu") == (name, "")


@pytest.mark.parametrize("name", ["fast", "", "CPU", None, 3, ["cpu"]])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match=r"backend is .*; expected one of auto, reference, torch"):
        choose(name, "cpu")


@pytest.mark.parametrize("name", ["cpu", "triton", "cuda"])
def test_absent_backends_say_why(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be used on cpu: not part of this"):
        choose(name, "cpu")
