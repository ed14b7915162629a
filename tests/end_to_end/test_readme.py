"""Every name in the README and the other documents exists."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from faigfast.cli.options import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BESIDE_CODE = ("README.md", "CONTRIBUTING.md", "csrc/README.md", "faigfast/engine/README.md")
DOCUMENTS = [*(ROOT / name for name in BESIDE_CODE), *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall(README)
PYTHON_BLOCKS = [text for language, text in BLOCKS if language == "python"]
# Code: fenced blocks and text between single backticks.
CODE = [text for _, text in BLOCKS] + re.findall(r"`([^`\n]+)`", FENCED.sub("", README))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_placeholder_is_left(document):
    lines = document.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "@@" in line]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(document):
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(\s*<?([^)>\s]+)", text)
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert not [link for link in local if not (document.parent / link).exists()]


def test_python_blocks_parse():
    assert PYTHON_BLOCKS
    for block in PYTHON_BLOCKS:
        ast.parse(block)


def test_the_first_example_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON_BLOCKS[0], "README.md", "exec"), {})
    assert "Attribution" in capsys.readouterr().out
    assert (tmp_path / "filters.png").stat().st_size > 5000
    statements = ast.parse(PYTHON_BLOCKS[0]).body
    assert len([s for s in statements if not isinstance(s, ast.Import | ast.ImportFrom)]) <= 10


def test_the_part_before_the_reference_is_short():
    assert len(README.split("\n# Reference\n")[0].split()) <= 600


def test_commands_exist():
    named = {name for text in CODE for name in re.findall(r"\bfaigfast ([a-z]\w*)", text)}
    assert named and named <= COMMANDS.keys()


def test_command_lines_are_understood():
    pytest.importorskip("jsonargparse")
    from faigfast.cli.main import build_parser

    lines = [line for _, text in BLOCKS for line in text.splitlines()]
    lines = [line for line in lines if line.startswith("faigfast ")]
    assert lines
    parser = build_parser()
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert parser.parse_args(words).command == words[0]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))
    named = {name for text in CODE for name in re.findall(r"\bmake ([a-z][\w-]*)", text)}
    assert {"demo", "test"} <= named <= targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony and set(phony[1].split()) == targets
