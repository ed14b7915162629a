"""Modules under their old names."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from faigfast.moved import MOVED, new_name


@pytest.mark.parametrize("name", [*MOVED, "findings.masking", "findings.sections.use"])
def test_an_old_name_gives_the_module_and_warns(name, monkeypatch):
    old, new = f"faigfast.{name}", new_name(f"faigfast.{name}")
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{new} now"):
        module = import_module(old)
    moved = import_module(new)
    assert moved.__spec__.name == new
    assert module is moved or (hasattr(moved, "__path__") and module.__doc__ is None)
    assert all(getattr(module, key) is value for key, value in vars(moved).items() if key[0] != "_")


def test_old_names_leave_the_new_packages_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from faigfast.findings.report import Page
    import faigfast.analysis.report.page

    assert faigfast.analysis.report.page.Page is Page
    assert faigfast.analysis.report.__name__ == "faigfast.analysis.report"


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        import_module("faigfast.nothing")
    with pytest.warns(DeprecationWarning), pytest.raises(ModuleNotFoundError, match="nothing"):
        import_module("faigfast.findings.nothing")


def test_the_package_itself_imports_no_old_name():
    code = "import warnings; warnings.simplefilter('error'); from faigfast.cli import main"
    subprocess.run([sys.executable, "-c", code], check=True)
