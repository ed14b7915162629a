"""Notes on pairs whose scores may mean little."""

from dataclasses import replace

import pytest
import torch
from cases.attributions import made

import faigfast
from faigfast.data.degradations import Degradation
from faigfast.integration.cautions import (
    CAUTIONS,
    FEW_IMAGES,
    MOST_BARRIER,
    MOST_COMPLETENESS,
    MOST_COSINE,
    cautions,
    cosines,
    few_images_sentence,
    median_barriers,
    pooled_completeness,
    without_cautions,
)
from faigfast.zoo.pairs import shipped_pair

SCORES = {"blur": [[1.0, 0.0, 0.0, 1.0]] * 3, "noise": [[0.0, 2.0, 1.0, 0.0]] * 3}


def sound(scores=SCORES, **changes):
    """A result of three images without cautions, with changed fields."""
    result = made(scores, **changes.pop("settings", {}))
    count, images = len(scores), result.images
    shape = (count, images)
    losses = torch.tensor([4.0, 2.0], dtype=torch.float64).expand(*shape, 2).clone()
    line = torch.tensor([[0.25, 3.0], [0.75, 2.2]], dtype=torch.float64)
    fields = {
        "losses": losses,
        "completeness": torch.full(shape, 0.01, dtype=torch.float64),
        "points": torch.full(shape, 2),
        "line": line.expand(*shape, 2, 2).clone(),
    }
    return replace(result, **{**fields, **changes})


def noted(result, kind):
    return [note for note in result.notes if note.startswith(f"{kind}: ")]


def test_a_sound_result_has_none():
    result = sound()
    assert not cautions(result) and not result.notes
    assert median_barriers(result) == {"blur": 0.0, "noise": 0.0}


@pytest.mark.parametrize("height", [MOST_BARRIER - 0.01, MOST_BARRIER + 0.01])
def test_a_barrier_of_most_images(height):
    line = sound().line.clone()
    line[1, :2, 0, 1] = 3.5 + 4 * height
    result = sound(line=line)
    assert median_barriers(result)["noise"] == pytest.approx(height)
    assert bool(noted(result, "barrier")) == (height > MOST_BARRIER)
    if height > MOST_BARRIER:
        (note,) = noted(result, "barrier")
        assert f"'noise' ({height:.3g})" in note and "'blur'" not in note
        assert "expected a target trained on from the baseline" in note
        assert [c.badge for c in cautions(result)] == [f"barrier {height:.3g}"]


def test_one_image_of_three_is_no_barrier():
    line = sound().line.clone()
    line[1, 0, 0, 1] = 100.0
    assert not noted(sound(line=line), "barrier")


@pytest.mark.parametrize(("end", "wanted"), [(3.99, False), (4.0, True), (5.0, True)])
def test_a_target_that_does_not_beat_the_baseline(end, wanted):
    losses = sound().losses.clone()
    losses[0, :, 1] = end
    result = sound(losses=losses)
    assert bool(noted(result, "gain")) == wanted
    if wanted:
        assert f"'blur' ({end:.4g} ≥ 4)" in noted(result, "gain")[0]


@pytest.mark.parametrize("error", [MOST_COMPLETENESS - 0.01, MOST_COMPLETENESS + 0.01])
@pytest.mark.parametrize(("tol", "remedy"), [(None, "tol such as"), (0.1, "a smaller tol")])
def test_completeness_above_its_bound(error, tol, remedy):
    completeness = torch.full((2, 3), error, dtype=torch.float64)
    result = sound(completeness=completeness, settings={"tol": tol})
    notes = noted(result, "completeness")
    assert bool(notes) == (error > MOST_COMPLETENESS)
    assert all("more steps" in note and remedy in note for note in notes)
    gradient = sound(completeness=completeness, settings={"method": "gradient"})
    assert not noted(gradient, "completeness")


def test_images_whose_losses_nearly_agree_do_not_decide():
    losses, completeness = sound().losses.clone(), sound().completeness.clone()
    losses[:, 0, 1], completeness[:, 0] = 4 - 1e-6, 1000.0
    result = sound(losses=losses, completeness=completeness)
    assert pooled_completeness(result)["blur"] == pytest.approx(0.01, rel=0.05)
    assert not noted(result, "completeness")
    losses[:, 0, 1], completeness[:, 0] = 4.0, float("inf")
    assert not sound(losses=losses, completeness=completeness).completeness.isfinite().all()
    assert pooled_completeness(sound(losses=losses, completeness=completeness))["blur"] < 0.02


def test_degradations_that_share_their_scores():
    near = {
        "blur": [[1.0, 2.0, 3.0, 0.0]],
        "noise": [[1.1, 2.0, 3.0, 0.0]],
        "jpeg": [[0, 0, 0, 1.0]],
    }
    result = sound(near)
    assert cosines(result)["blur", "noise"] > MOST_COSINE > cosines(result)["blur", "jpeg"]
    (note,) = noted(result, "contrast")
    assert "'blur' and 'noise' are nearly equal" in note
    same = sound(dict.fromkeys("abc", near["blur"]))
    assert "'a' and 'b' and 2 more pairs" in noted(same, "contrast")[0]
    assert not noted(sound(near, settings={"contrasted": False}), "contrast")
    zero = sound({"a": [[0.0] * 4], "b": [[0.0] * 4]})
    assert not noted(zero, "contrast")


def test_notes_follow_the_images_of_a_merged_result():
    line = sound().line.clone()
    line[:, :, 0, 1] = 100.0
    bad, good = sound(line=line), sound()
    assert noted(bad, "barrier") and not noted(good, "barrier")
    assert not noted(bad.merge([good, good]), "barrier")
    assert len(noted(bad.merge([bad, good]), "barrier")) == 1
    assert not without_cautions(bad.notes)
    assert all(note.startswith(CAUTIONS) for note in bad.notes)


def test_few_steps_of_the_shipped_pair_are_noted():
    generator = torch.Generator().manual_seed(0)
    gt = torch.rand(1, 3, 6, 6, generator=generator)
    gt = torch.nn.functional.interpolate(gt, size=(48, 48), mode="bicubic").clamp(0, 1)
    lq = {r: Degradation.parse(r)(gt) for r in ("blur=2", "noise=0.1")}
    result = faigfast.attribute(*shipped_pair(), {"lq": lq, "gt": gt}, steps=1)
    assert noted(result, "completeness") and not noted(result, "contrast")
    assert "more steps" in noted(result, "completeness")[0]


def test_few_images_are_cautioned_in_words_and_not_in_notes():
    assert few_images_sentence(FEW_IMAGES) == ""
    assert few_images_sentence(1).startswith("Scores of 1 image: rankings change")
    assert f"at least {FEW_IMAGES}" in few_images_sentence(FEW_IMAGES - 1)
    result = sound()
    assert result.images < FEW_IMAGES and not cautions(result)
