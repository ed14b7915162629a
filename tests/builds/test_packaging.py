import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FALSE = shutil.which("false") or "/bin/false"  # a compiler that always fails
PARTS = ("faigfast", "kernels", "csrc", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(
        not (ROOT / "setup.py").exists() or not find_spec("pybind11") or not find_spec("pip"),
        reason="needs the source tree, pybind11 and pip",
    ),
]
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))),
    reason="needs a C++ compiler",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clean copy of the tree, so that no build touches the one under test."""
    copy = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json")
    for part in (*PARTS, "LICENSE"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


def pip(*arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAIGFAST_")}
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        env=environment | variables,
        capture_output=True,
        text=True,
    )


def build(source, out, **variables):
    """Make a wheel offline from a copy of its own; return pip's run and the wheel, if any."""
    tree = out / "tree"
    shutil.copytree(source, tree)
    run = pip("wheel", "--no-build-isolation", "--no-deps", "-w", out, tree, **variables)
    return run, next(out.glob("*.whl"), None)


def install(wheel, target):
    run = pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    assert run.returncode == 0, run.stderr
    return target


def python(target, code, **variables):
    """Run code that sees the package installed there and no editable one, from an empty folder."""
    hide = "import sys; sys.meta_path = [f for f in sys.meta_path if '__editable__' not in repr(f)]"
    empty = target.parent / "empty"
    empty.mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", f"{hide}\n{code}"],
        env=os.environ | {"PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        cwd=empty,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def record(target):
    return json.loads((target / "faigfast" / "_build_info.json").read_text())


SCORES = """
import sys, torch, pathlib
import faigfast, faigfast.kernels
from faigfast.backend.cpu import extension as _extension
from faigfast.ops import score_reduction
assert pathlib.Path(faigfast.__file__).parent == pathlib.Path(sys.path[1]) / "faigfast"
assert score_reduction(torch.ones(2, 3, 4, 3, 3), -torch.ones(3, 4, 3, 3)).eq(9).all()
"""


@needs_compiler
def test_a_wheel_with_the_extension(source, tmp_path):
    run, wheel = build(source, tmp_path, FAIGFAST_BUILD="cpu")
    assert wheel, run.stdout + run.stderr
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"faigfast"}
    assert "faigfast/kernels/__init__.py" in names
    assert any(name.startswith("faigfast/_C.") for name in names)
    assert not [name for name in names if name.endswith((".cpp", ".h", ".cu", ".cuh", ".o"))]
    # The wheel also holds every file of the package that is not Python.
    tree = tmp_path / "tree"
    data = [p for p in (source / "faigfast").rglob("*") if p.is_file()]
    assert {p.relative_to(source).as_posix() for p in data} <= set(names)

    target = install(wheel, tmp_path / "site")
    shutil.rmtree(tree)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    # The import must compile nothing: this compiler always fails.
    text = python(target, SCORES + "print(_extension.module.compiled())", CXX=FALSE)
    assert "'portable'" in text
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    info = record(target)
    assert info["extension"] and info["mode"] == "cpu" and info["reason"] is None
    assert info["cuda"] == {"extension": False, "reason": "built with FAIGFAST_BUILD=cpu"}
    assert str(info["instruction_sets"]) == text
    for isa in info["instruction_sets"]:
        code = "from faigfast.backend.cpu import extension as e\nprint(e.module.supported())"
        if isa in python(target, code):
            python(target, SCORES, FAIGFAST_ISA=isa)


def test_a_wheel_without_the_extension(source, tmp_path):
    run, wheel = build(source, tmp_path, FAIGFAST_BUILD="none", CC=FALSE, CXX=FALSE)
    assert wheel, run.stdout + run.stderr
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "/_C" in name]
    target = install(wheel, tmp_path / "site")
    text = python(target, SCORES + "print(faigfast.backends())")
    assert "missing: built with FAIGFAST_BUILD=none" in text


def test_no_compiler_is_recorded(source, tmp_path):
    run, wheel = build(source, tmp_path, CC=FALSE, CXX=FALSE)
    assert wheel, run.stdout + run.stderr
    target = install(wheel, tmp_path / "site")
    info = record(target)
    assert info["mode"] == "auto" and not info["extension"]
    assert FALSE in info["reason"]
    text = python(target, SCORES + "print(faigfast.backends())")
    assert "missing: the build of the extension failed" in text


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("cpu", FALSE),
        ("cuda", "FAIGFAST_BUILD is 'cuda', but nvcc was not found"),
        ("gpu", "FAIGFAST_BUILD is 'gpu'; expected one of auto, cpu, cuda, none"),
    ],
)
def test_builds_that_fail_loudly(mode, message, source, tmp_path):
    without_nvcc = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "", "CUDA_PATH": ""}
    if mode == "cuda" and shutil.which("nvcc", path=without_nvcc["PATH"]):
        pytest.skip("nvcc is among the system's own programs")
    run, wheel = build(source, tmp_path, FAIGFAST_BUILD=mode, CC=FALSE, CXX=FALSE, **without_nvcc)
    assert run.returncode != 0 and wheel is None
    assert message in run.stdout + run.stderr


@needs_compiler
def test_cuda_that_cannot_be_built_leaves_the_rest(source, tmp_path):
    """FAIGFAST_BUILD is `auto`, the driver seems to exist and nvcc fails."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho no host compiler\nexit 1\n")
    nvcc.chmod(0o755)
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    setup = tree / "setup.py"
    # A fake machine name limits the build to one instruction set.
    pretend = "import ctypes, platform\nctypes.CDLL = platform.machine = lambda *_: 'there'\n"
    setup.write_text(pretend + setup.read_text())
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | {"FAIGFAST_BUILD": "auto", "CUDA_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    info = json.loads((tree / "faigfast" / "_build_info.json").read_text())
    assert info["extension"] and info["reason"] is None
    assert not info["cuda"]["extension"]
    assert "the build of the extension failed" in info["cuda"]["reason"]
    assert "no host compiler" in info["cuda"]["reason"]
    built = [path.name.split(".")[0] for path in (tree / "faigfast").glob("*.so")]
    assert built == ["_C"]


def test_an_old_extension_does_not_survive_a_build_without(source, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    for name in ("_C", "_C_cuda"):
        (tree / "faigfast" / f"{name}.cpython-0-old.so").touch()
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | {"FAIGFAST_BUILD": "none"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not list((tree / "faigfast").glob("_C*"))
    assert json.loads((tree / "faigfast" / "_build_info.json").read_text())["mode"] == "none"


FAKE = "#!/bin/sh\n[ -e .venv/without_pip ] && [ $2 = pip ] && exit 1\nexit 0\n"


@pytest.fixture
def tree(tmp_path):
    """A tree with a .venv whose interpreter does nothing and succeeds."""
    for file in ("scripts/environment.sh", "pyproject.toml", "setup.py", "faigfast/version.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "csrc").mkdir()
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(FAKE)
    interpreter.chmod(0o755)
    return tmp_path


def make_environment(tree, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON"}
    return subprocess.run(
        ["bash", "scripts/environment.sh"],
        cwd=tree,
        env=environment | variables,
        capture_output=True,
        text=True,
    )


def test_an_environment_with_pip_is_used_and_made_once(tree):
    first, second = make_environment(tree), make_environment(tree)
    assert first.returncode == 0 and "making .venv" not in first.stderr
    assert "installing faigfast" in first.stderr
    assert second.returncode == 0 and second.stderr == ""


@pytest.mark.parametrize("variables", [{}, {"PYTHON": sys.executable}], ids=["default", "PYTHON"])
def test_an_environment_of_others_without_pip_is_left_alone(tree, variables):
    (tree / ".venv" / "without_pip").touch()
    run = make_environment(tree, **variables)
    assert run.returncode == 1
    assert run.stderr == (
        "faigfast: .venv has no working pip and was not made here; "
        "put pip into it or move it away\n"
    )
    assert (tree / ".venv" / "without_pip").exists()


def test_a_broken_environment_of_ours_is_made_anew(tree):
    (tree / ".venv" / "without_pip").touch()
    (tree / ".venv" / "python.stamp").touch()
    # `python -m venv` fails, so the script stops before it installs anything.
    python = tree / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && exec false\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    run = make_environment(tree, PYTHON=str(python))
    assert run.returncode == 1 and "-m venv' failed" in run.stderr
    assert [path.name for path in (tree / ".venv").iterdir()] == ["python.stamp"]
    assert sys.version in (tree / ".venv" / "python.stamp").read_text()


def test_another_interpreter_is_refused_and_nothing_deleted(tree):
    stamp = tree / ".venv" / "python.stamp"
    stamp.write_text("3.9 of another place\n")
    run = make_environment(tree, PYTHON=sys.executable)
    assert run.returncode == 1
    assert run.stderr == (
        f"faigfast: .venv was not made here with '{sys.executable}'; "
        "remove .venv to change, or leave PYTHON out\n"
    )
    assert stamp.exists() and (tree / ".venv" / "bin" / "python").exists()
    assert make_environment(tree).returncode == 0  # without PYTHON any stamp is accepted

    lines = [sys.version, os.path.realpath(sys.executable), os.path.realpath(sys.prefix)]
    stamp.write_text("\n".join(lines) + "\n")
    assert make_environment(tree, PYTHON=sys.executable).returncode == 0


def test_a_missing_interpreter_is_named(tree):
    run = make_environment(tree, PYTHON="python-of-nowhere")
    assert run.returncode == 1
    assert "there is no 'python-of-nowhere'; set PYTHON" in run.stderr
