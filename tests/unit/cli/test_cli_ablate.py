"""`faigfast ablate`."""

import json

import pytest
import torch
from cases.tables import check_files

from faigfast.analysis.ablation_result import Ablation
from faigfast.cli.main import main
from faigfast.filters.filter_set import FilterSet
from faigfast.zoo.pairs import shipped_pair

PAIR = ["--pair", "srcnn-24x4-x2", "--crop", "24", "--measured", "700", "--quiet"]


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """An index file of some filters of two layers."""
    path = tmp_path_factory.mktemp("filters") / "some.txt"
    net = shipped_pair("srcnn-24x4-x2")[1]
    from faigfast.filters.index import FilterIndex

    FilterSet(torch.arange(60, 90), filter_index=FilterIndex.of(net)).save(path)
    return str(path)


def test_tables_rankings_and_resumption(some, tmp_path, capsys):
    command = ["ablate", *PAIR, "--filters", some, "--top", "0.001", "--output", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "blur: largest losses" in text and "noise, dB" in text
    assert max(map(len, text.split("wrote")[0].splitlines()[:14])) <= 100
    result = Ablation.load(tmp_path / "ablation.safetensors")
    assert result.numbers.tolist() == list(range(60, 90))
    table = check_files(tmp_path / "ablation")
    assert len(table) == 30 * 2 * 2
    top = FilterSet.load(tmp_path / "blur_ablation_top_0.001_index.txt")
    assert top == result.top("blur", 0.001)
    manifest = json.loads((tmp_path / "ablate.json").read_text())
    assert "ablation.csv" in manifest["files"]
    parts = sorted((tmp_path / "parts").glob("*.part"))
    stamps = [part.stat().st_mtime_ns for part in parts]
    assert main(command) == 0
    assert [part.stat().st_mtime_ns for part in parts] == stamps


def test_channels(tmp_path, capsys):
    command = ["ablate", *PAIR, "--by", "channel", "--biases", "--output", str(tmp_path)]
    assert main(command) == 0
    result = Ablation.load(tmp_path / "ablation.safetensors")
    assert result.by == "channel"
    assert "in" not in check_files(tmp_path / "ablation")
    assert not list(tmp_path.glob("*_index.txt"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--biases"], "by='channel'"),
        (["--top", "2"], "2"),
        (["--memory", "0"], "memory"),
    ],
)
def test_bad_options(words, text, some, tmp_path, capsys):
    command = ["ablate", *PAIR, "--filters", some, *words, "--output", str(tmp_path / "out")]
    assert main(command) == 1
    assert text in capsys.readouterr().err
