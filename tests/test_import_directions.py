"""Imports run one way: what each part of the package may know of the others and of the world."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "faigfast"
FILES = {
    ".".join(("faigfast", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

# Beyond the standard library these import nothing else: third parties, and modules of faigfast.
ONLY = {
    "quadrature": {"numpy"},
    "objective": {"torch"},
    "integral": {"torch"},
    "files": set(),
    "choices": {"torch", "faigfast.io.atomic"},
    "precision": {"torch"},
    "networks": {"torch", "numpy", "faigfast.backend.precision"},
    "path": {"torch", "numpy", "faigfast.models.state", "faigfast.io.atomic"},
    "fingerprints": {"torch", "numpy", "faigfast.models.state"},
    "filters": {
        "torch",
        "numpy",
        "faigfast.models.state",
        "faigfast.models.fingerprint",
        "faigfast.io.atomic",
    },
}
# What these import, at first or second hand, has none of that in it.
ABOVE = ("findings", "commands", "bench")
NEVER = {
    "attribution": ABOVE,
    "result": ABOVE,
    "reference": (*ABOVE, "engine", "ops", "kernels", "_extension", "_C"),
    "path": ABOVE,
    "engine": (*ABOVE, "attribution", "result", "reference", "_backends", "zoo", "data"),
    "ops": (*ABOVE, "engine", "attribution", "result", "reference", "path", "quadrature"),
    "integral": ("engine", "ops", "path", "reference", "attribution"),
}
OPTIONAL = ("jsonargparse", "yaml", "matplotlib", "pandas", "PIL", "skimage", "sklearn", "scipy")


@cache
def imports(module):
    """Names of all modules a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import, which is not looked into"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in below if name in MODULES or name.endswith("._C")}
            found |= inner
            if len(inner) < len(below):
                found.add(node.module)
    return found


def reached(module):
    """All modules of faigfast that a module imports, directly or through others."""
    seen, waiting = set(), [module]
    while waiting:
        new = {name for name in imports(waiting.pop()) if name.startswith("faigfast")} - seen
        seen |= new
        waiting += new & MODULES.keys()
    return seen


def within(name, part):
    return name == f"faigfast.{part}" or name.startswith(f"faigfast.{part}.")


def test_the_modules_are_found():
    assert {
        "faigfast",
        "faigfast.attribution.attributor",
        "faigfast.ops.score_reduction",
    } <= MODULES.keys()
    assert "faigfast.filters.filter_set" in imports("faigfast.result")
    assert {"faigfast.models.state", "faigfast.backend.cpu.extension"} <= reached(
        "faigfast.attribution.attributor"
    )


@pytest.mark.parametrize("part", ONLY)
def test_the_lowest_parts_know_little(part):
    found = {
        name if name.startswith("faigfast") else name.split(".")[0]
        for name in imports(f"faigfast.{part}")
    }
    assert found - set(sys.stdlib_module_names) <= ONLY[part]


@pytest.mark.parametrize("part", NEVER)
def test_nothing_below_knows_what_stands_above(part):
    for module in filter(lambda name: within(name, part), MODULES):
        wrong = {n for n in reached(module) if any(within(n, p) for p in NEVER[part])}
        assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_commands_stand_on_top_and_tests_outside(module):
    tops = {name.split(".")[0] for name in imports(module)}
    assert not tops & {"tests", "benchmarks", "kernels"}
    if not any(within(module, part) for part in ("cli", "commands", "__main__")):
        assert not [name for name in imports(module) if within(name, "cli")]
        assert not [name for name in imports(module) if within(name, "commands")]


def test_kernels_know_files_and_each_other():
    """And nothing of faigfast imports Triton, or its kernels, where a module begins."""
    known = ("faigfast.io.atomic", "faigfast.backend.gpu.timed_choices", "faigfast.kernels")
    allowed = {"torch", "triton", *sys.stdlib_module_names}
    for file in (PACKAGE.parent / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name in known or within(name, "kernels")
                assert own or name.split(".")[0] in allowed, f"{file.name} imports {name}"
    for module, file in MODULES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            name = getattr(node, "module", None) or ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [name]
            assert not [n for n in names if n.split(".")[0] == "triton" or within(n, "kernels")], (
                module
            )


def loaded(code):
    """The packages in memory after a fresh interpreter has run some code."""
    code += "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split()) - set(sys.stdlib_module_names)


def test_the_package_loads_its_four_dependencies_and_nothing_else():
    assert loaded("import faigfast") - loaded("") == {"faigfast"}
    found = loaded("from faigfast import *")
    assert found - loaded("import torch, numpy, safetensors.torch, tqdm") == {"faigfast"}
    assert not found.intersection(OPTIONAL)
