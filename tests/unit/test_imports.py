"""Modules loaded by importing faigfast and its Triton kernels; import-linter checks the rest."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPTIONAL = ("jsonargparse", "yaml", "matplotlib", "pandas", "PIL", "skimage", "sklearn", "scipy")


def top_imports(file):
    """Modules that a file imports at its top."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_kernels_know_files_timed_choices_and_each_other():
    known = ("faigfast.io", "faigfast.backend.gpu", "faigfast.kernels")
    allowed = {"torch", "triton", *sys.stdlib_module_names}
    for file in (ROOT / "kernels").glob("*.py"):
        for name in top_imports(file):
            own = name.startswith(known)
            assert own or name.split(".")[0] in allowed, f"{file.name} imports {name}"


def test_nothing_imports_triton_where_a_module_begins():
    for file in (ROOT / "faigfast").rglob("*.py"):
        for name in top_imports(file):
            assert not name.startswith(("triton", "faigfast.kernels")), f"{file}: {name}"


def loaded(*statements):
    """Packages loaded before and after each statement, run in a fresh interpreter."""
    show = "print(*{name.split('.')[0] for name in sys.modules})"
    code = "\n".join(["import sys", show, *(f"{each}\n{show}" for each in statements)])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(row.split()) - set(sys.stdlib_module_names) for row in run.stdout.splitlines()]


def test_the_package_loads_its_four_dependencies_and_nothing_else():
    nothing, package, dependencies, names = loaded(
        "import faigfast", "import torch, numpy, safetensors.torch, tqdm", "from faigfast import *"
    )
    assert package - nothing == {"faigfast"}
    assert names == dependencies
    assert not names.intersection(OPTIONAL)
