"""`tol_contrast` and `overlap`: more points until the ranking is accurate enough."""

import pytest
import torch

from faigfast import Attributor, attribute
from faigfast.zoo.pairs import shipped_pair


@pytest.fixture(scope="module")
def problem():
    networks = shipped_pair("srcnn-24x4-x2")
    generator = torch.Generator().manual_seed(0)
    lq = {name: torch.rand(3, 3, 12, 14, generator=generator) for name in ("blur", "noise")}
    return networks, {"lq": lq, "gt": torch.rand(3, 3, 24, 28, generator=generator)}


def errors(result):
    return [result.contrast_error(name).points for name in result.degradations]


def test_points_are_added_until_the_error_of_the_contrasts_is_small(problem):
    networks, batch = problem
    default = attribute(*networks, batch)
    bound = max(errors(default)) / 3
    result = attribute(*networks, batch, tol_contrast=bound)
    assert max(errors(result)) <= bound < max(errors(default))
    assert (result.points >= default.points).all() and result.points.max() > default.points.max()
    assert result.setting.tol_contrast == bound and f"tol_contrast {bound:g}" in str(result)
    assert not any(note.startswith("refinement: ") for note in result.notes)
    # What was promised holds: against many points the error is small.
    exact = attribute(*networks, batch, steps=192)
    contrast, right = (r.contrast("blur").double() for r in (result, exact))
    assert (contrast - right).abs().sum() <= 1.2 * bound * right.abs().sum()


def test_a_met_goal_changes_nothing(problem):
    networks, batch = problem
    default, result = attribute(*networks, batch), attribute(*networks, batch, tol_contrast=10.0)
    assert result.points.tolist() == default.points.tolist()
    for name in default.degradations:
        assert torch.equal(result.scores(name), default.scores(name))


def test_the_best_filters_stay(problem):
    networks, batch = problem
    result = attribute(*networks, batch, overlap=1.0)
    assert all(result.stability(name, 0.01).points == 1 for name in result.degradations)


def test_a_refined_image_has_the_scores_of_its_last_level(problem):
    networks, batch = problem
    levels = {n: attribute(*networks, batch, steps=n) for n in (15, 24, 48)}
    result = attribute(*networks, batch, tol_contrast=1e-9, steps=48)
    last = {15: 15, 15 + 24: 24, 15 + 24 + 48: 48}
    for n, name in enumerate(result.degradations):
        for image, points in enumerate(result.points[n].tolist()):
            expected = levels[last[points]].scores(name)[image]
            torch.testing.assert_close(result.scores(name)[image], expected)
    assert result.points.max() == 15 + 24 + 48 and result.error.isfinite().all()
    assert result.line[0, 0, :, 0].diff().nan_to_num(0).min() >= 0


def test_what_the_most_points_miss_is_told(problem):
    networks, batch = problem
    with Attributor(*networks, tol_contrast=1e-9, steps=24) as attributor:
        result = attributor(batch)
    missed = [note for note in result.notes if note.startswith("refinement: ")]
    assert len(missed) == 2 and "blur" in missed[0] and "above tol_contrast=1e-09" in missed[0]


def test_several_batches_and_sizes_and_the_mean_alone(problem):
    networks, batch = problem
    other = {
        "lq": {name: x[:2, :, :10] for name, x in batch["lq"].items()},
        "gt": batch["gt"][:2, :, :20],
    }
    result = attribute(*networks, [batch, other], tol_contrast=2e-3, per_image=False)
    assert result.images == 5 and max(errors(result)) <= 4e-3


def test_the_reference_does_the_same(problem):
    networks, batch = problem
    few = {"lq": {name: x[:1] for name, x in batch["lq"].items()}, "gt": batch["gt"][:1]}
    bound = max(errors(attribute(*networks, few))) / 2
    one, other = (
        attribute(*networks, few, tol_contrast=bound, backend=backend)
        for backend in ("auto", "reference")
    )
    assert one.points.tolist() == other.points.tolist()
    torch.testing.assert_close(one.scores("blur"), other.scores("blur"), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (dict(tol_contrast=0), ValueError, "tol_contrast is 0; expected a positive"),
        (dict(tol_contrast=float("nan")), ValueError, "tol_contrast is nan; expected a positive"),
        (dict(tol_contrast="1"), TypeError, "tol_contrast is '1'; expected a number"),
        (dict(overlap=True), TypeError, "overlap is True; expected a number"),
        (dict(overlap=1.5), ValueError, "overlap is 1.5; expected a share above 0, at most 1"),
        (dict(overlap=0.9, rule="midpoint"), ValueError, "expected the rule 'averaged'"),
        (dict(overlap=0.9, steps=12), ValueError, "steps is 12; with overlap .* at least 24"),
    ],
)
def test_wrong_goals(problem, options, kind, message):
    networks, batch = problem
    with pytest.raises(kind, match=message):
        attribute(*networks, batch, **options)
