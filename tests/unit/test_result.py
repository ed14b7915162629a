import itertools
from dataclasses import replace

import pytest
import torch
from cases.attributions import TWO, equal, made
from cases.networks import images, kinked, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from faigfast import FilterIndex, FilterSet, attribute
from faigfast.integration.cautions import without_cautions


def test_scores_by_name():
    result = made(TWO)
    assert result.degradations == ("blur", "noise") and result.images == 2
    assert result.scores("noise").tolist() == TWO["noise"]
    for name in (None, "jpeg", 0):
        with pytest.raises(ValueError, match=r"degradation is .*expected one of \('blur', 'noise'"):
            result.scores(name)
    assert made({"lq": TWO["blur"]}).scores().tolist() == TWO["blur"]


@pytest.mark.parametrize("method", ["scores", "mean", "contrast", "ranking"])
@pytest.mark.parametrize("name", [["blur"], {}, ("blur", ["noise"]), 1.5, b"blur"])
def test_names_that_are_no_text(method, name):
    with pytest.raises(TypeError, match=r"degradation is .*expected one of \('blur', 'noise'"):
        getattr(made(TWO), method)(name)
    with pytest.raises(TypeError, match="degradation is "):
        made(TWO).top(name, 0.5)


def test_contrast_against_a_number():
    with pytest.raises(TypeError, match=r"against is 3; expected names of \('blur', 'noise'"):
        made(TWO).contrast("blur", against=3)


def test_contrast_against_a_list_in_a_list():
    with pytest.raises(TypeError, match=r"against is \['noise'\]; expected one of"):
        made(TWO).contrast("blur", against=[["noise"]])


def test_contrast_is_the_mean_difference():
    result = made(TWO)
    assert result.contrast("blur").tolist() == [2, 0, -3, -1]
    assert result.contrast("noise").tolist() == [-2, 0, 3, 1]
    assert result.contrast("blur", "noise").tolist() == [2, 0, -3, -1]
    assert result.contrast("blur", ["noise"]).tolist() == [2, 0, -3, -1]
    assert made({"lq": TWO["blur"]}).contrast(None).tolist() == [2, 2, 2, 0]
    for a, against in (("jpeg", None), ("blur", "jpeg"), ("blur", ["noise", "jpeg"]), (None, None)):
        with pytest.raises(ValueError, match=r"(degradation|against) is .*expected one of"):
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
    many = made({"lq": torch.ones(1, 10_000)})
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
    result = made({"lq": torch.ones(1, filters)})
    expected = max(1, thousandths * filters // 1000)
    assert len(result.top(None, thousandths / 1000)) == expected


def test_a_fraction_may_be_a_numpy_number():
    import numpy as np

    assert len(made({"lq": torch.ones(1, 100)}).top(None, np.float64(0.29))) == 29


@pytest.mark.parametrize("fraction", [0, 0.0, -0.1, 1.0001, 2, float("nan"), float("inf")])
def test_fractions_outside(fraction):
    with pytest.raises(ValueError, match=r"fraction is .*expected a number in \(0, 1\]"):
        made(TWO).top("blur", fraction)


@pytest.mark.parametrize("fraction", ["0.1", None, True, [0.1]])
def test_fractions_of_the_wrong_kind(fraction):
    with pytest.raises(TypeError, match=r"fraction is .*expected a number in \(0, 1\]"):
        made(TWO).top("blur", fraction)


def test_top_by_number():
    result = made(TWO, [True, False, True, True])
    assert result.top("blur", n=2).indices.tolist() == [0, 3]
    assert result.top("noise", n=1, against=()).indices.tolist() == [2]
    for n in (0, -1, 4):
        with pytest.raises(ValueError, match=f"n is {n}; expected 1 to 3, the number of scored"):
            result.top("blur", n=n)
    for n in (True, 1.0, "2", [1]):
        with pytest.raises(TypeError, match=r"n is .*; expected a number of filters"):
            result.top("blur", n=n)
    with pytest.raises(TypeError, match=r"fraction is 0.5 and n is 1; expected .* not both"):
        result.top("blur", 0.5, n=1)


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


@pytest.mark.parametrize("others", [None, 3])
def test_merge_of_nothing(others):
    with pytest.raises(TypeError, match=f"others is {others}; expected an Attribution"):
        made(TWO).merge(others)


def test_merge_joins_images_in_order():
    a, b = made(TWO, notes=("x",)), made({k: [v[0]] for k, v in TWO.items()}, notes=("y", "x"))
    merged = a.merge(b)
    assert merged.images == 3 and without_cautions(merged.notes) == ["x", "y"]
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
    assert text.splitlines()[0].endswith(", worst estimated error 5.0e-03)")
    assert "left 100 emulated, 10 points" in repr(made(TWO, rule="left", steps=100, emulate=True))


def test_a_tolerance_that_was_missed_is_noted():
    baseline, target = pair(kinked)
    options = {"rule": "graded", "tol": 1e-9, "steps": 13}
    one, two = (attribute(baseline, target, images(n), **options) for n in (1, 2))
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


# --- table


def test_to_frame():
    pandas = pytest.importorskip("pandas")
    frame = made(TWO, [True, False, True, True]).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [
        "flat", "layer", "out", "in", "degradation", "score", "contrast_score",
    ]  # fmt: skip
    assert frame["degradation"].tolist() == 3 * ["blur"] + 3 * ["noise"]
    assert frame["flat"].tolist() == 2 * [0, 2, 3]
    assert frame["layer"].tolist() == 2 * ["a.weight", "b.weight", "b.weight"]
    assert frame["out"].tolist() == 2 * [0, 0, 1] and frame["in"].tolist() == 6 * [0]
    assert frame["score"].tolist()[:3] == [2, 2, 0]
    assert frame["contrast_score"].tolist()[3:] == [-2, 3, 1]
    for column, kind in itertools.chain(
        ((c, "i") for c in ("flat", "out", "in")),
        ((c, "f") for c in ("score", "contrast_score")),
    ):
        assert frame[column].dtype.kind == kind, column
    noise = frame[frame["degradation"] == "noise"]
    assert noise.nlargest(1, "score")["flat"].item() == 2
