"""Modules under their old names."""

import subprocess
import sys
from importlib import import_module

import pytest

from faigfast.moved import MOVED, new_name


@pytest.mark.parametrize("name", [*MOVED, "findings.masking", "findings.sections.use"])
def test_an_old_name_gives_the_module_and_warns(name, monkeypatch):
    old, new = f"faigfast.{name}", new_name(f"faigfast.{name}")
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{new} now"):
        assert import_module(old) is import_module(new)
    assert import_module(new).__spec__.name == new


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        import_module("faigfast.nothing")
    with pytest.warns(DeprecationWarning), pytest.raises(ModuleNotFoundError, match="nothing"):
        import_module("faigfast.findings.nothing")


def test_the_package_itself_imports_no_old_name():
    code = "import warnings; warnings.simplefilter('error'); from faigfast.cli import main"
    subprocess.run([sys.executable, "-c", code], check=True)
