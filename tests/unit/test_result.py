import itertools
import json
from dataclasses import replace

import pytest
import torch
from cases.networks import images, kinked, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from faigfast import Attribution, FilterIndex, FilterSet, attribute
from faigfast.integration.settings import AttributionSettings


def attribution_settings(**changes):
    values = {
        "rule": "midpoint", "steps": 10, "emulate": False, "objective": "squared_error",
        "backend": "reference", "precision": "fp32", "baseline": "b" * 64, "target": "c" * 64,
        "tol": None, "per_image": True,
    }  # fmt: skip
    return AttributionSettings(**{**values, **changes})


def made(scores, scored=None, notes=(), index=None, **changes):
    """An attribution with these scores, {name: [N][F]}."""
    scores = {name: torch.as_tensor(value) for name, value in scores.items()}
    first = next(iter(scores.values()))
    images, filters = first.shape
    index = index or FilterIndex(("a.weight", "b.weight"), ((1, 2, 3, 3), (filters - 2, 1, 1, 1)))
    shape = (len(scores), images)
    generator = torch.Generator().manual_seed(images)
    return Attribution(
        index,
        scores,
        torch.rand(shape, generator=generator, dtype=torch.float64),
        torch.rand(*shape, 2, generator=generator, dtype=torch.float64),
        torch.full(shape, float("nan"), dtype=torch.float64),
        torch.full(shape, 10),
        torch.ones(filters, dtype=torch.bool) if scored is None else torch.tensor(scored),
        attribution_settings(**changes),
        notes,
    )


def equal(a, b):
    return (
        a.index == b.index
        and a.degradations == b.degradations
        and all(torch.equal(a.scores(d), b.scores(d)) for d in a.degradations)
        and torch.equal(a.completeness, b.completeness)
        and torch.equal(a.losses, b.losses)
        and torch.equal(a.error.nan_to_num(-1), b.error.nan_to_num(-1))
        and torch.equal(a.scored, b.scored)
        and a.setting == b.setting
        and a.notes == b.notes
    )


TWO = {"blur": [[1.0, 2.0, 3.0, 0.0], [3.0, 2.0, 1.0, 0.0]], "noise": [[0.0, 2.0, 5.0, 1.0]] * 2}


def test_scores_by_name():
    result = made(TWO)
    assert result.degradations == ("blur", "noise") and result.images == 2
    assert result.scores("noise").tolist() == TWO["noise"]
    for name in (None, "jpeg", 0):
        with pytest.raises(ValueError, match=r"degradation is .*expected one of \('blur', 'noise'"):
            result.scores(name)
    assert made({"lq": TWO["blur"]}).scores().tolist() == TWO["blur"]


def test_contrast_is_the_mean_difference():
    result = made(TWO)
    assert result.contrast("blur").tolist() == [2, 0, -3, -1]
    assert result.contrast("noise").tolist() == [-2, 0, 3, 1]
    assert result.contrast("blur", "noise").tolist() == [2, 0, -3, -1]
    assert result.contrast("blur", ["noise"]).tolist() == [2, 0, -3, -1]
    assert made({"lq": TWO["blur"]}).contrast(None).tolist() == [2, 2, 2, 0]
    for a, against in (("jpeg", None), ("blur", "jpeg"), ("blur", ["noise", "jpeg"]), (None, None)):
        with pytest.raises(ValueError, match=r"degradation is .*expected one of"):
            result.contrast(a, against)


def test_contrast_against_the_mean_of_all_others():
    result = made({**TWO, "jpeg": [[4.0, 0.0, 0.0, 0.0]] * 2})
    assert result.contrast("blur").tolist() == [0, 1, -0.5, -0.5]
    assert result.contrast("blur", "jpeg").tolist() == [-2, 2, 2, 0]
    assert result.contrast("blur", ["noise", "jpeg"]).tolist() == result.contrast("blur").tolist()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(0, 100),
)
def test_two_contrasts_are_exact_negatives(rows, seed):
    other = torch.rand(len(rows), 4, generator=torch.Generator().manual_seed(seed)) * 1e6
    result = made({"a": torch.tensor(rows), "b": other})
    assert torch.equal(result.contrast("a"), -result.contrast("b"))
    assert result.contrast("a").dtype == torch.float64
    expected = (torch.tensor(rows).double() - other.double()).mean(0)
    torch.testing.assert_close(result.contrast("a").double(), expected, rtol=1e-6, atol=0.5)


def test_top_is_best_first_with_ties_in_the_order_of_the_index():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0, 0.0, 3.0, 2.0, -0.0]])
    result = made({"lq": scores})
    assert result.top(None, 1.0).indices.tolist() == [1, 3, 5, 2, 6, 0, 4, 7]
    assert result.top("lq", 0.5).indices.tolist() == [1, 3, 5, 2]
    assert result.top("lq", 0.25).indices.tolist() == [1, 3]
    many = made({"lq": torch.zeros(1, 10_000)})
    assert many.top(None, 0.5).indices.tolist() == list(range(5000))


def test_top_of_a_contrast():
    result = made(TWO)
    assert result.top("blur", 1).indices.tolist() == [0, 1, 3, 2]
    assert result.top("noise", 1).indices.tolist() == [2, 3, 1, 0]
    assert result.top("blur", 0.5, against="noise").indices.tolist() == [0, 1]


@pytest.mark.parametrize(
    "fraction, filters, count",
    [
        (0.01, 100, 1), (0.29, 100, 29), (0.57, 100, 57), (0.58, 100, 58), (0.07, 100, 7),
        (0.14, 50, 7), (0.001, 100, 1), (1e-12, 100, 1), (0.019, 100, 1), (0.999, 100, 99),
        (1, 100, 100), (1.0, 7, 7), (0.5, 7, 3), (1 / 3, 9, 2), (0.1, 10, 1), (0.3, 10, 3),
        (0.03, 151936, 4558), (5e-1, 4, 2),
    ],
)  # fmt: skip
def test_a_fraction_is_rounded_down_to_at_least_one(fraction, filters, count):
    result = made({"lq": torch.rand(1, filters)})
    assert len(result.top(None, fraction)) == count


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1000), st.integers(3, 400))
def test_fractions_of_a_thousand_are_exact(thousandths, filters):
    result = made({"lq": torch.zeros(1, filters)})
    expected = max(1, thousandths * filters // 1000)
    assert len(result.top(None, thousandths / 1000)) == expected


def test_a_fraction_may_be_a_numpy_number():
    import numpy as np

    assert len(made({"lq": torch.zeros(1, 100)}).top(None, np.float64(0.29))) == 29


@pytest.mark.parametrize("fraction", [0, 0.0, -0.1, 1.0001, 2, float("nan"), float("inf")])
def test_fractions_outside(fraction):
    with pytest.raises(ValueError, match=r"fraction is .*expected a number in \(0, 1\]"):
        made(TWO).top("blur", fraction)


@pytest.mark.parametrize("fraction", ["0.1", None, True, [0.1]])
def test_fractions_of_the_wrong_kind(fraction):
    with pytest.raises(TypeError, match=r"fraction is .*expected a number in \(0, 1\]"):
        made(TWO).top("blur", fraction)


def test_top_ranks_only_what_was_scored():
    scored = [False, True, False, True]
    result = made({"lq": [[0.0, 0.0, 0.0, 1.0]]}, scored)
    assert result.top(None, 0.5).indices.tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"fraction 1\.0 asks for 4 filters; 2 were scored"):
        result.top(None, 1.0)


def test_top_carries_the_networks():
    filters = made(TWO).top("blur", 0.5)
    assert isinstance(filters, FilterSet)
    assert (filters.total, filters.baseline, filters.target) == (4, "b" * 64, "c" * 64)
    assert filters.index == made(TWO).index.fingerprint


# --- merging


@pytest.mark.parametrize("others", [[None], ["a result"], [1, 2]])
def test_merge_of_something_else(others):
    with pytest.raises(TypeError, match=f"others holds a {type(others[0]).__name__}; expected an"):
        made(TWO).merge(others)


def test_merge_joins_images_in_order():
    a, b = made(TWO, notes=("x",)), made({k: [v[0]] for k, v in TWO.items()}, notes=("y", "x"))
    merged = a.merge(b)
    assert merged.images == 3 and merged.notes == ("x", "y")
    for i, name in enumerate(TWO):
        assert merged.scores(name).tolist() == [*TWO[name], TWO[name][0]]
        assert torch.equal(
            merged.completeness[i], torch.cat([a.completeness[i], b.completeness[i]])
        )
        assert torch.equal(merged.losses[i], torch.cat([a.losses[i], b.losses[i]]))
    assert merged.error.shape == (2, 3)
    assert equal(a.merge([b]), merged) and equal(a.merge([]), a)
    assert equal(a.merge(iter([b, b])), a.merge(b).merge(b))
    assert a.images == 2, "the parts stay as they are"


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: made({"blur": TWO["blur"]}), "degradations"),
        (lambda: made(dict(reversed(TWO.items()))), "degradations"),
        (lambda: made(TWO, steps=11), "setting"),
        (lambda: made(TWO, target="d" * 64), "setting"),
        (lambda: made(TWO, index=FilterIndex(("a", "b"), ((1, 2), (2, 1)))), "index"),
        (lambda: made(TWO, [True, True, True, False]), "score different filters"),
    ],
)
def test_merge_refuses_what_does_not_belong(other, words):
    with pytest.raises(ValueError, match=words):
        made(TWO).merge(other())


def test_merge_names_the_fields_that_differ():
    with pytest.raises(ValueError) as refusal:
        made(TWO).merge(made(TWO, steps=11, tol=0.1))
    assert str(refusal.value) == (
        "results of different setting cannot be merged: steps is 10 and 11, tol is None and 0.1"
    )


# --- text


def test_repr_tells_rule_points_and_errors():
    assert repr(made({"lq": TWO["blur"][:1]})).startswith(
        "Attribution(lq: 1 image, 4 filters; midpoint, 10 points, reference fp32; "
        "worst completeness error "
    )
    result = made(TWO, tol=0.01, steps=729)
    points, error = torch.tensor([[9, 9], [27, 9]]), torch.tensor([[1e-3, 2e-3], [5e-3, 1e-4]])
    text = repr(replace(result, points=points, error=error.double()))
    assert "2 images, 4 filters; midpoint to tol 0.01, 9 to 27 points, reference fp32" in text
    assert text.endswith(", worst estimated error 5.0e-03)")
    assert "left 100 emulated, 10 points" in repr(made(TWO, rule="left", steps=100, emulate=True))


def test_a_tolerance_that_was_missed_is_noted():
    baseline, target = pair(kinked)
    one, two = (attribute(baseline, target, images(n), tol=1e-9, steps=9) for n in (1, 2))
    for result, count in (
        (one, "1 of 1 image"),
        (two, "2 of 2 images"),
        (one.merge(two), "3 of 3"),
    ):
        (note,) = (note for note in result.notes if note.startswith("tol "))
        worst = float(result.error.max())
        assert f"tol 1e-09 was not reached by {count}" in note
        assert f"estimated error up to {worst:.1e}" in note
        assert not result.reached.any()
    for options in ({"tol": 0.9}, {}):
        result = attribute(baseline, target, images(2), **options)
        assert result.reached.all() and not any(note.startswith("tol ") for note in result.notes)


@pytest.mark.parametrize("per_image", [True, False])
def test_means_and_contrasts_are_of_one_type(per_image):
    result = attribute(
        *pair(kinked, torch.float32), images(2, dtype=torch.float32), per_image=per_image, steps=2
    )
    assert result.mean().dtype == result.contrast(None).dtype == torch.float64


# --- files


def test_save_and_load(tmp_path):
    result = made(TWO, [True, False, True, True], notes=("fell back: no GPU", "é — ✓"))
    result.save(tmp_path / "sub" / "result.safetensors")
    again = Attribution.load(str(tmp_path / "sub" / "result.safetensors"))
    assert equal(again, result)
    assert again.top("blur", 0.5).indices.tolist() == result.top("blur", 0.5).indices.tolist()
    assert again.index.locate(3) == result.index.locate(3)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["result.safetensors"]


@pytest.mark.parametrize("names", [("lq",), ("blur", "noise", "scores.0"), ("a b/ü", "")])
def test_save_and_load_of_a_computed_result(tmp_path, names):
    a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    x = {name: torch.rand(2, 3, 5, 5) for name in names}
    result = attribute(a, b, {"lq": x, "gt": torch.rand(2, 3, 5, 5)}, rule="gauss-kronrod", steps=3)
    result.save(tmp_path / "r.safetensors")
    assert equal(Attribution.load(tmp_path / "r.safetensors"), result)
    result.merge(result).save(tmp_path / "r.safetensors")
    assert Attribution.load(tmp_path / "r.safetensors").images == 4


def test_files_that_are_not_attributions(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors is not a file"):
        Attribution.load(path)
    with pytest.raises(FileNotFoundError):
        Attribution.load(tmp_path)
    made(TWO).save(path)
    saved = path.read_bytes()
    weights = {"weight": torch.zeros(2)}
    cases = [b"", b"text", b"\0" * 100, saved[:8], saved[:200], saved[:-1], saved[:-20] + b"x" * 40]
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(ValueError, match=r"x\.safetensors is"):
            Attribution.load(path)
    for metadata in (None, {"format": "pt"}, {"format": json.dumps("other 1")}, {"a": "{"}):
        save_file(weights, path, metadata)
        with pytest.raises(ValueError, match=r"x\.safetensors is"):
            Attribution.load(path)


@pytest.mark.parametrize("missing", ["degradations", "layers", "shapes", "setting", "notes"])
@pytest.mark.parametrize("value", ["missing", None, 3])
def test_metadata_that_is_not_an_attributions(missing, value):
    tensors, metadata = made(TWO).to_tensors()
    metadata[missing] = value
    if value == "missing":
        del metadata[missing]
    with pytest.raises(ValueError):
        Attribution.from_tensors(tensors, metadata)


@pytest.mark.parametrize("name", ["scores.0", "completeness", "losses", "error", "scored"])
@pytest.mark.parametrize("change", ["missing", "shape"])
def test_tensors_that_are_not_an_attributions(name, change):
    tensors, metadata = made(TWO).to_tensors()
    tensors[name] = torch.zeros(7, 9)
    if change == "missing":
        del tensors[name]
    with pytest.raises(ValueError):
        Attribution.from_tensors(tensors, metadata)


def test_a_result_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in ("folder", "file/below.safetensors"):
        with pytest.raises((OSError, ValueError), match=path.split("/")[0]):
            made(TWO).save(tmp_path / path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_an_interrupted_save_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "r.safetensors"
    made(TWO).save(path)
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("faigfast.io.tensor_file.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made({"lq": TWO["blur"]}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# --- table


def test_to_frame():
    pandas = pytest.importorskip("pandas")
    frame = made(TWO, [True, False, True, True]).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [
        "flat", "layer", "out", "in", "score_blur", "contrast_blur", "score_noise",
        "contrast_noise",
    ]  # fmt: skip
    assert frame["flat"].tolist() == [0, 2, 3]
    assert frame["layer"].tolist() == ["a.weight", "b.weight", "b.weight"]
    assert frame["out"].tolist() == [0, 0, 1] and frame["in"].tolist() == [0, 0, 0]
    assert frame["score_blur"].tolist() == [2, 2, 0]
    assert frame["contrast_noise"].tolist() == [-2, 3, 1]
    for column, kind in itertools.chain(
        ((c, "i") for c in ("flat", "out", "in")),
        ((c, "f") for c in frame.columns if c.startswith(("score", "contrast"))),
    ):
        assert frame[column].dtype.kind == kind, column
    assert frame.nlargest(1, "score_noise")["flat"].item() == 2
