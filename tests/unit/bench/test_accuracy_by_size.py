"""The accuracy of rules by the size of the ground truth, and its command."""

import pytest
import torch
from cases import command_line
from cases.accuracy import NAMES, errors_by_hand, tiny
from cases.command_line import one_line

import faigfast
from faigfast.analysis.evaluation import crops
from faigfast.bench import accuracy_by_size as by_size
from faigfast.bench.accuracy import AUTHORS, RuleAccuracy, RuleVariant
from faigfast.cli import accuracy as command
from faigfast.cli.main import main
from faigfast.cli.output import markers
from faigfast.data import Degradation
from faigfast.zoo.pairs import PAIRS

one_thread = command_line.one_thread
pytestmark = pytest.mark.usefixtures("one_thread")


def distinct(names):
    generator = torch.Generator().manual_seed(5)
    return {name: torch.rand(3, 33, 50, generator=generator) for name in NAMES}


@pytest.fixture
def sized(monkeypatch):
    monkeypatch.setattr(by_size, "shipped_pair", tiny)
    monkeypatch.setattr(by_size, "photographs", distinct)
    monkeypatch.setattr(by_size, "SIZES", {8: 3, 16: 9})


@pytest.mark.slow
def test_rules_on_every_size(sized):
    names, sizes = by_size.measure_by_size(PAIRS[:2], progress=False)
    assert names == NAMES
    assert [(s.pair, s.side, s.images) for s in sizes] == [
        (pair, *size) for pair in PAIRS[:2] for size in ((8, 6), (16, 12))
    ]
    for size in sizes:
        assert [row.name for row in size.rows] == [
            "left 100", "averaged, default", "averaged 12", "midpoint 20", "midpoint 15",
            "graded 16", "graded 14",
        ]  # fmt: skip
        assert all(len(row.errors) == 2 * size.images for row in size.rows)
    images = crops(distinct(NAMES), by_size.degradations_of(tiny("")[1]), 16)
    batch = {"lq": images.lq, "gt": images.gt}
    exact, midpoint = (
        faigfast.attribute(*tiny(""), batch, rule=rule, steps=steps, backend="reference")
        for rule, steps in (("averaged", 160), ("midpoint", 15))
    )
    errors = errors_by_hand(midpoint, exact)
    assert sizes[1].rows[4].errors.tolist() == pytest.approx(errors, rel=1e-2, abs=1e-5)


def test_crops_are_spread_over_each_photograph():
    data = crops(distinct(NAMES), {"blur": Degradation(blur=2.0, scale=2)}, 8)  # 4×6 of each
    part = by_size.of_each_photograph(data, 3)
    places = [4, 12, 20, 28, 36, 44]
    assert part.names == tuple(data.names[n] for n in places)
    assert part.gt.equal(data.gt[places]) and part.lq["blur"].equal(data.lq["blur"][places])
    assert (
        by_size.of_each_photograph(data, 24).names
        == by_size.of_each_photograph(data, 99).names
        == data.names
    )


def test_the_command_writes_sizes(sized, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(by_size, "RULE_VARIANTS", (AUTHORS, RuleVariant("midpoint", 2)))
    monkeypatch.setattr(by_size, "SIZES", {8: 1, 16: 2})
    file = tmp_path / "accuracy.md"
    words = ["accuracy", "--by_size", "--quiet", "--output", str(file)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    text, (begin, end) = file.read_text(encoding="utf-8"), markers("accuracy --by_size")
    assert err == "" and text.startswith(begin) and text.rstrip().endswith(end)
    assert f"\n    faigfast {' '.join(words)}\n" in text
    for pair in by_size.PAIRS:
        _, _, lines = text.partition(f"### {pair}\n\n")
        assert lines.startswith("| ground truth | images | left 100 | midpoint 2 |\n")
        rows = [line.split(" | ") for line in lines.splitlines()[2:4]]
        assert [row[:2] for row in rows] == [["| 8×8", "2 × 2"], ["| 16×16", "2 × 4"]]
        assert all(cell in out for row in rows for cell in row[2:-1])
    _, sizes = by_size.measure_by_size(by_size.PAIRS[:1], progress=False)
    row = sizes[0].rows[1]
    errors = (row.errors.mean(), row.errors.max(), row.contrast)
    assert "| {} ({}; {}) |".format(*map(command._short, errors)) in text


def test_points_are_shown_where_images_differ():
    errors, none = torch.tensor([0.01, 0.03]), torch.full((2,), torch.nan)
    rows = (
        RuleAccuracy("name", torch.tensor(points), errors, 0.1, {}, 1.0, none)
        for points in ([12, 12], [12, 24])
    )
    same, differ = map(command._three, rows)
    assert (same, differ) == ("2.0e-2 (3.0e-2; 1.0e-1)", f"{same}, 18.0 points")


def test_a_size_beside_sizes(capsys):
    assert main(["accuracy", "--by_size", "--size", "8"]) == 1
    assert "--size and --by_size are both given" in one_line(capsys)
