"""The compiled extension `faigfast._C`, or the reason why it is missing."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # noqa: F401  first, so that the extension finds torch's OpenMP library loaded


def _read_build_info() -> dict[str, Any]:
    """Read the record of setup.py; empty if the package was never built."""
    path = Path(__file__).parents[2] / "_build_info.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _load() -> tuple[ModuleType | None, str]:
    try:
        return import_module("faigfast._C"), ""
    except ModuleNotFoundError:
        if build_info.get("extension"):
            return None, "it was built for another Python"
        return None, build_info.get("reason") or "this copy of the package was never built"
    except ImportError as error:
        return None, f"it cannot be loaded: {error}"


build_info = _read_build_info()
module, missing = _load()


def describe() -> str:
    """Say in one line which instruction sets the extension has, or why there is none.

    Raises
    ------
    ValueError
        If the environment variable FAIGFAST_ISA names an instruction set that is absent.
    """
    if module is None:
        return f"missing: {missing}"
    openmp = "with" if build_info.get("openmp") else "without"
    sets = ", ".join(module.compiled())
    amx = ", and AMX for bf16" if module.amx() else ""
    return f"built {openmp} OpenMP for {sets}; {module.isa()} in use{amx}"
