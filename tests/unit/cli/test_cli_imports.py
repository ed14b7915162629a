"""Help and wrong arguments answer without torch, since public names are imported on first use."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import faigfast
from faigfast.cli.options import COMMANDS

REQUIRED = ("attribute", "a.pth", "b.pth", "--gt", "gt", "--output", "out")
EXIT_CODES = {
    ("--help",): 0,
    ("--version",): 0,
    **{(command, "--help"): 0 for command in COMMANDS},
    (*REQUIRED, "--print_config"): 0,
    (): 2,
    ("dance",): 2,
    ("--nope",): 2,
    (*REQUIRED, "--nope"): 2,
    ("attribute", "a.pth"): 2,
    (*REQUIRED, "--steps", "x"): 2,
    (*REQUIRED, "--memory", "5 parsecs"): 2,
    (*REQUIRED, "--downsampling", "x"): 2,
    (*REQUIRED, "--config", "absent.yaml"): 2,
    ("train", "--output", "out", "--network", "vgg"): 2,
    ("mask", "--by", "x"): 2,
    ("modulate", "--strengths", "x"): 2,
    ("prune", "--crop", "x"): 2,
}
RUN_EACH = """
import contextlib, io, json, sys
from faigfast.__main__ import main
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["faigfast", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    answers.append((code, "torch" in sys.modules))
print(json.dumps(answers))
"""


def python(code, *arguments):
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_help_and_wrong_arguments_answer_without_torch():
    answers = json.loads(python(RUN_EACH, json.dumps(list(EXIT_CODES))))
    for (words, code), answer in zip(EXIT_CODES.items(), answers, strict=True):
        assert answer == [code, False], f"faigfast {' '.join(words)}"


def test_public_names_are_imported_on_first_use():
    assert python(
        "import sys, faigfast\n"
        "assert set(faigfast.__all__) <= set(dir(faigfast))\n"
        "print('torch' in sys.modules)\n"
        "from faigfast import attribute\n"
        "print('torch' in sys.modules, faigfast.attribute is attribute)"
    ).split() == ["False", "True", "True"]


def test_the_mapping_the_imports_for_mypy_and_all_agree():
    tree = ast.parse(Path(faigfast.__file__).read_text(encoding="utf-8"))
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in branch.body for alias in node.names}
    assert imported == faigfast._MODULE_OF
    assert {*imported, "__version__"} == set(faigfast.__all__)


@pytest.mark.parametrize("name", sorted(faigfast._MODULE_OF))
def test_public_names_are_never_modules(name):
    assert PathFinder.find_spec(f"faigfast.{name}", faigfast.__path__) is None
    assert getattr(faigfast, name) is getattr(import_module(faigfast._MODULE_OF[name]), name)


def test_backends_is_a_function_whatever_was_imported_before():
    assert python(
        "import faigfast.backend.catalogue, faigfast.cli.doctor, faigfast.bench.race\n"
        "import faigfast\n"
        "print(*faigfast.backends())"
    ).startswith("reference torch cpu")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'faigfast' has no attribute 'nope'"):
        _ = faigfast.nope
    with pytest.raises(ImportError, match="cannot import name 'nope'"):
        exec("from faigfast import nope")
