"""The accuracy of every rule, its command, and the shipped pairs."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from cases import command_line
from cases.accuracy import NAMES, errors_by_hand, tiny
from cases.command_line import one_line

import faigfast
from faigfast.bench import accuracy, accuracy_pairs
from faigfast.bench.accuracy import (
    AUTHORS,
    DEFAULT,
    EMULATED,
    IN_FLOAT32,
    IN_FLOAT64,
    PUBLISHED_VARIANTS,
    RULE_VARIANTS,
    RuleAccuracy,
    RuleVariant,
    compare,
)
from faigfast.bench.accuracy import measure_accuracy as measure
from faigfast.bench.accuracy_pairs import PUBLISHED
from faigfast.cli import accuracy as command
from faigfast.cli.main import main
from faigfast.cli.output import markers
from faigfast.data import Degradation
from faigfast.integration.quadrature import RULES
from faigfast.integration.refinement import NESTED, STEPS, STEPS_OF_OTHERS
from faigfast.zoo.pairs import PAIRS, shipped_folder, shipped_pair

BEGIN, END = markers("accuracy")

DOCUMENT = Path(__file__).parents[3] / "docs" / "lab" / "accuracy.md"
SIZE = 8

one_thread = command_line.one_thread


# One rule of each kind, with fewer points than a converged rule needs.
REFERENCE = RuleVariant("averaged", 80)
CROSS_CHECK = RuleVariant("gauss-legendre", 80)
SOME = (
    DEFAULT,
    AUTHORS,
    EMULATED,
    *(RuleVariant(rule, min(counts)) for rule, counts in accuracy.STEPS.items()),
    *(RuleVariant(rule, tol=max(bounds)) for rule, bounds in accuracy.TOLERANCES.items()),
)


def pictures(names):
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(3, 26, 31, generator=generator) for name in NAMES}


@pytest.fixture(scope="module")
def small(one_thread):
    """Replace the shipped networks and pictures by tiny ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "load", tiny)
        patch.setattr(accuracy, "photographs", pictures)
        for name, value in {
            "REFERENCE": REFERENCE,
            "CROSS_CHECK": CROSS_CHECK,
            "RULE_VARIANTS": SOME,
        }.items():
            patch.setattr(accuracy, name, value)
        yield


@pytest.fixture(scope="module")
def measured(small):
    return measure(PAIRS[:1], size=SIZE, progress=False)


@pytest.fixture
def quick(small, measured, monkeypatch):
    """Let the command return a finished measurement; lists its calls."""
    calls = []

    def recorded(*arguments, **options):
        calls.append((*arguments, options))
        return measured

    monkeypatch.setattr(command, "measure_accuracy", recorded)
    return calls


@pytest.fixture(scope="module")
def batch():
    """The measured crops, cut by hand."""
    square = torch.stack([image[:, 1:25, 3:27] for image in pictures(NAMES).values()])
    degradations = {
        "blur": Degradation(blur=2.0, scale=2),
        "noise": Degradation(noise=0.1, scale=2),
    }
    lq = {
        name: torch.cat([degrade(square[n : n + 1], seed=n) for n in range(2)])[..., 4:8, 4:8]
        for name, degrade in degradations.items()
    }
    return {"lq": lq, "gt": square[..., 8:16, 8:16]}


@pytest.fixture(scope="module")
def reference(batch):
    return faigfast.attribute(
        *tiny(""), batch, rule=REFERENCE.rule, steps=REFERENCE.steps, backend="reference",
        precision="fp64",
    )  # fmt: skip


def find(measured, name):
    return next(row for row in measured[1][0].rows if row.name == name)


def test_every_rule_is_measured(measured):
    names, (section,) = measured
    index = faigfast.FilterIndex.of(tiny("")[0])
    assert names == NAMES and section.pair == PAIRS[0] and not section.notes
    assert section.title == f"{PAIRS[0]}: SRCNNStyle, {len(index)} filters, 4 images"
    labels = [row.name for row in section.rows]
    assert labels == [*map(str, SOME), "left 100 emulated, against left 100"]


def test_list_of_trials():
    labels = {str(variant) for variant in RULE_VARIANTS}
    rules = [rule for rule in RULES if rule != "right"]
    assert len(labels) == len(RULE_VARIANTS)
    assert {variant.rule for variant in RULE_VARIANTS} == set(rules)
    assert {f"{rule} {STEPS.get(rule, STEPS_OF_OTHERS)}" for rule in rules} <= labels
    assert {variant.rule for variant in RULE_VARIANTS if variant.tol} <= set(NESTED)
    assert set(PUBLISHED_VARIANTS) <= set(RULE_VARIANTS) and IN_FLOAT32 in PUBLISHED_VARIANTS


def test_the_default_is_what_attribute_takes(measured, batch):
    result = faigfast.attribute(*tiny(""), batch)
    row = find(measured, "averaged, default")
    assert row.points.tolist() == result.points.flatten().tolist()


def test_rounding_is_measured(measured, batch):
    exact, rounded = (
        faigfast.attribute(*tiny(""), batch, steps=variant.steps, precision=variant.precision)
        for variant in (IN_FLOAT64, IN_FLOAT32)
    )
    difference = torch.tensor(errors_by_hand(rounded, exact)).mean()
    assert 0 < measured[1][0].rounding < 1e-4
    assert measured[1][0].rounding == pytest.approx(float(difference), rel=0.5)


def test_slow_pairs_have_fewer_photographs(small, monkeypatch):
    monkeypatch.setattr(accuracy, "SLOW", PAIRS[:1])
    monkeypatch.setattr(accuracy, "PHOTOGRAPHS_OF_SLOW", 1)
    monkeypatch.setattr(accuracy, "RULE_VARIANTS", (IN_FLOAT32,))
    _, (section,) = measure(PAIRS[:1], size=SIZE, progress=False)
    assert section.rows[0].points.tolist() == [6, 6] and section.title.endswith("2 images")


def test_published_pairs_have_rules_and_padding_of_their_own(small, monkeypatch):
    name = "waifu2x-noise2-noise3"
    padded = []

    def attribute(*arguments, **options):
        padded.append(options["pad"])
        return faigfast.attribute(*arguments, **options | {"pad": 0})

    monkeypatch.setattr(accuracy, "attribute", attribute)
    monkeypatch.setattr(accuracy, "PUBLISHED_VARIANTS", (IN_FLOAT32, AUTHORS))
    monkeypatch.setattr(accuracy, "PUBLISHED_CROSS_CHECK", RuleVariant("graded", 7))
    _, (section,) = measure([name], size=SIZE, progress=False)
    assert [row.name for row in section.rows] == ["averaged 6", "left 100"]
    assert section.agreement.name == "graded 7" and set(padded) == {7}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("midpoint 10", {"rule": "midpoint", "steps": 10}),
        ("averaged 6", {"rule": "averaged", "steps": 6}),
        ("left 50", {"rule": "left", "steps": 50}),
        ("gauss-kronrod 21", {"rule": "gauss-kronrod", "steps": 21}),
        ("graded, tol 0.02", {"rule": "graded", "tol": 0.02}),
        ("left 100 emulated", {"rule": "left", "steps": 100, "emulate": True}),
    ],
)
def test_figures_are_those_of_the_plain_loop(name, options, measured, batch, reference):
    pair = tuple(net.double() for net in tiny(""))
    doubles = {"lq": {k: x.double() for k, x in batch["lq"].items()}, "gt": batch["gt"].double()}
    result = faigfast.attribute(*pair, doubles, backend="reference", **options)
    row = find(measured, name)
    near = functools.partial(pytest.approx, rel=1e-2, abs=1e-5)
    assert row.points.tolist() == result.points.flatten().tolist()
    assert row.errors.tolist() == near(errors_by_hand(result, reference))
    assert row.completeness == near(float(result.completeness.max()))
    assert row.estimates.tolist() == near(result.error.flatten().tolist(), nan_ok=True)
    own, exact = (part.contrast("blur").double() for part in (result, reference))
    assert row.contrast == near(float((own - exact).abs().sum() / exact.abs().sum()))
    for degradation, share in row.overlap.items():
        top, best = (
            set(part.ranking(degradation).indices[: max(1, len(own) // 100)].tolist())
            for part in (result, reference)
        )
        assert share == len(top & best) / len(best)


def test_the_check_is_compared_with_the_reference(measured, batch, reference):
    row = measured[1][0].agreement
    cross_check = faigfast.attribute(
        *tiny(""), batch, rule=CROSS_CHECK.rule, steps=CROSS_CHECK.steps
    )  # rounding is part of an error this small
    assert row.name == str(CROSS_CHECK) and row.points.tolist() == 4 * [CROSS_CHECK.steps]
    assert row.errors.tolist() == pytest.approx(errors_by_hand(cross_check, reference), rel=1e-2)
    assert row.errors.max() < 0.2 * find(measured, "left 50").errors.min()


def test_what_is_emulated_is_also_compared_with_the_rule(measured, batch):
    left, emulated = (
        faigfast.attribute(*tiny(""), batch, rule="left", steps=100, emulate=emulate)
        for emulate in (False, True)
    )
    row = find(measured, "left 100 emulated, against left 100")
    assert row.errors.tolist() == pytest.approx(errors_by_hand(emulated, left), rel=1e-2)
    assert row.points.tolist() == 4 * [17]
    assert not row.errors.equal(find(measured, "left 100 emulated").errors)


def test_only_rules_with_an_estimate_have_one(measured):
    for row in measured[1][0].rows:
        estimates = any(word in row.name for word in ("kronrod", "tol", "averaged"))
        assert row.estimates.isfinite().all() if estimates else row.estimates.isnan().all()
        tol = row.name.partition("tol ")[2]
        assert not tol or row.estimates.max() <= float(tol)


def test_compared_with_itself(reference):
    row = compare("itself", reference, reference)
    assert not row.errors.any() and row.contrast == 0
    assert row.overlap == {"blur": 1.0, "noise": 1.0}


def test_cells():
    double = functools.partial(torch.tensor, dtype=torch.float64)
    errors, estimates = double([0.01, 0.02, 0.03]), double([0.02, 0.01, 0.03])
    row = RuleAccuracy(
        "name", torch.tensor([6, 9, 12]), errors, 0.1234, {"a": 0.5}, 1.96e-12, estimates
    )
    cells = command._cells(row)
    assert cells[:6] == ["name", "9.0 (6–12)", "2.0e-2", "3.0e-2", "1.2e-1", "0.500"]
    assert cells[6:] == ["2.0e-12", "2.0e-2", "1.00", "2 of 3"]
    none = RuleAccuracy(
        "name", torch.tensor([7, 7, 7]), errors, 2.0, {}, 1.0, torch.full((3,), torch.nan)
    )
    assert command._cells(none) == [
        "name", "7", "2.0e-2", "3.0e-2", "2.0e0", "1.0e0", "–", "–", "–",
    ]  # fmt: skip


# The command


def rows_of(text, pair):
    """First cells of a pair's table in a document."""
    block = text.partition(f"\n### {pair}:")[2].partition("\n### ")[0].partition(END)[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in block.splitlines() if "|" in line]
    return cells[2:]


def test_prints_and_writes_a_document(quick, measured, tmp_path, capsys):
    file = tmp_path / "new" / "accuracy.md"
    words = ["accuracy", "--quiet", "--size", "8", "--output", str(file)]
    assert main(words) == 0
    assert quick == [(None, {"size": 8, "progress": False})]
    labels = [row.name for row in measured[1][0].rows]
    out, err = capsys.readouterr()
    assert err == "" and all(f"\n  {label}  " in out for label in labels)
    text = file.read_text(encoding="utf-8")
    assert text.startswith(BEGIN) and text.rstrip().endswith(END)
    assert f"\n    faigfast {' '.join(words)}\n" in text
    assert rows_of(text, PAIRS[0]) == labels
    assert "one, two" in text and "float64" in text and "torch 2" in text
    assert all(len(line) <= 120 for line in text.splitlines() if line[:1] not in ("|", " "))
    assert [path.name for path in file.parent.iterdir()] == ["accuracy.md"]

    before, after = "# Title\n\nProse first.\n\n", "\n\n## More prose\n"
    file.write_text(f"{before}{BEGIN}\nold figures\n{END}{after}", encoding="utf-8")
    assert main([*words, "--pairs", PAIRS[0]]) == 0
    again = file.read_text(encoding="utf-8")
    assert again.startswith(before + BEGIN) and again.endswith(END + after)
    assert "old figures" not in again and rows_of(again, PAIRS[0]) == labels
    assert quick[1] == ([PAIRS[0]], {"size": 8, "progress": False})


def test_missing_photographs_are_said(quick, capsys):
    assert main(["accuracy"]) == 0
    assert "without astronaut.png, chelsea.png, china.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["mine", f"{END}\n{BEGIN}", BEGIN, b"\xff\xfe"])
def test_other_documents_are_left_alone(text, quick, tmp_path, capsys):
    file = tmp_path / "mine.md"
    content = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(content)
    assert main(["accuracy", "--quiet", "--output", str(file)]) == 1
    assert f"--output {file} exists without the lines" in one_line(capsys)
    assert file.read_bytes() == content and not quick


def test_unwritable_documents(quick, tmp_path, capsys):
    assert main(["accuracy", "--quiet", "--output", str(tmp_path)]) == 1
    assert f"--output {tmp_path} is a folder; expected a file name" in one_line(capsys)
    (tmp_path / "file").touch()
    assert main(["accuracy", "--quiet", "--output", str(tmp_path / "file" / "a.md")]) == 1
    assert "cannot be written" in one_line(capsys)
    assert not quick


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"pairs": ["edsr"]},
            ValueError,
            f"pair is 'edsr'; expected one of {', '.join((*PAIRS, *PUBLISHED))}",
        ),
        ({"pairs": PAIRS[0]}, TypeError, "expected a sequence of names"),
        ({"pairs": []}, ValueError, "pairs is empty"),
        ({"size": 0}, ValueError, "size is 0; expected 1 to 8"),
        ({"size": 9}, ValueError, "size is 9; expected 1 to 8"),
        ({"size": 7}, ValueError, "crops of 7"),
    ],
)
def test_bad_arguments(options, kind, message, monkeypatch):
    monkeypatch.setattr(accuracy, "photographs", pictures)
    monkeypatch.setattr(accuracy, "load", accuracy_pairs.load)
    with pytest.raises(kind) as caught:
        measure(**{"size": SIZE, "progress": False, **options})
    assert message in str(caught.value)


def test_progress_ends_full(small, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "RULE_VARIANTS", (IN_FLOAT32, AUTHORS))
    measure(PAIRS[:1], size=SIZE)
    assert "5/5" in capsys.readouterr().err


def test_fallbacks_are_said(measured, capsys, monkeypatch):
    names, (section,) = measured
    noted = dataclasses.replace(section, notes=["runs point by point: a reason"])
    monkeypatch.setattr(command, "measure_accuracy", lambda *_, **__: (names, [noted]))
    assert main(["accuracy", "--quiet"]) == 0
    assert "runs point by point: a reason" in capsys.readouterr().out


# Shipped pairs


@pytest.mark.parametrize("name", PAIRS)
def test_shipped_pairs(name):
    files = {path.name for path in shipped_folder(name).iterdir()}
    expected = {"baseline.safetensors", "target.safetensors", "command.txt", "training.json"}
    assert expected | {"evaluation.json"} <= files
    baseline, target = shipped_pair(name)
    assert type(baseline) is type(target) and not (baseline.training or target.training)
    assert target(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", PAIRS)
def test_the_document_has_every_rule(name):
    labels = [*map(str, RULE_VARIANTS), f"{EMULATED}, against {AUTHORS}"]
    assert rows_of(DOCUMENT.read_text(encoding="utf-8"), name) == labels
