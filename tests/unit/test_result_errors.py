"""Errors of contrasts and the stability of their best filters."""

import math
from dataclasses import replace

import pytest
import torch
from cases.attributions import TWO, made
from cases.networks import images, kinked, pair

from faigfast import Attribution, attribute
from faigfast.filters.resampled_images import is_best, kept_shares, resampled
from faigfast.result_errors import RESAMPLES, errors_in_words

ERRORS = [[0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 0.3, 0.0]]  # of the mean scores of TWO


def with_errors(result, errors=ERRORS):
    return replace(result, mean_error=torch.tensor(errors))


def test_errors_of_a_contrast_in_closed_form():
    """Image contrasts (1, 0, −2, −1) and (3, 0, −4, −1): standard errors (1, 0, 1, 0)."""
    result = with_errors(made(TWO))
    error = result.contrast_error("blur")
    assert error.points == pytest.approx(0.6 / 6)
    assert error.images == pytest.approx(math.sqrt(2 / math.pi) * 2 / 6)
    assert error.total == pytest.approx(math.hypot(error.points, error.images))
    assert result.contrast_error("noise") == pytest.approx(error)
    assert result.contrast_error("blur", "noise") == error
    assert result.contrast_error("blur", ()).points == pytest.approx(0.3 / 6)
    assert result.contrast_error("noise", ()).images == 0, "both images have the same scores"


def test_errors_subtract_the_mean_of_the_others():
    result = with_errors(made({**TWO, "jpeg": TWO["noise"]}), [*ERRORS, [0.0, 0.5, 0.0, 0.0]])
    assert result.contrast_error("blur").points == pytest.approx((0.3 + 0.25 + 0.15) / 6)
    assert result.contrast_error("blur", "jpeg").points == pytest.approx(0.8 / 6)
    one = made({"lq": TWO["blur"]})
    assert with_errors(one, ERRORS[:1]).contrast_error(None).points == pytest.approx(0.3 / 6)


def test_the_error_of_images_is_the_mean_error_of_many_samples():
    """Normal scores: the mean distance of sample means from the true mean, in L1."""
    generator = torch.Generator().manual_seed(0)
    scores = 5 + torch.randn(400, 16, 50, generator=generator, dtype=torch.float64)
    true = (scores.mean(1) - 5).abs().sum(1) / scores.mean(1).abs().sum(1)  # of 400 samples
    told = [made({"lq": sample}).contrast_error(None).images for sample in scores]
    assert sum(told) / len(told) == pytest.approx(float(true.mean()), rel=0.05)


@pytest.mark.parametrize("method", ["contrast_error", "stability"])
def test_errors_that_are_not_known(method):
    def errors(result):
        return getattr(result, method)("blur")

    assert math.isnan(errors(made(TWO)).points) and errors(made(TWO)).images >= 0
    single = with_errors(made({name: rows[:1] for name, rows in TWO.items()}))
    mean = replace(with_errors(made(TWO)), setting=made(TWO, per_image=False).setting)
    for result in (single, mean):
        assert math.isnan(errors(result).images) and errors(result).points >= 0
    assert math.isnan(single.contrast_error("blur").total)


def test_the_error_of_a_contrast_of_zero_is_not_known():
    result = with_errors(made({"blur": TWO["blur"], "noise": TWO["blur"]}))
    assert all(map(math.isnan, result.contrast_error("blur")))
    with pytest.raises(ValueError, match="the contrast of 'blur' against 'noise' is exactly 0"):
        result.stability("blur", 0.5)


def test_names_and_fractions_are_refused_as_elsewhere():
    result = with_errors(made(TWO, [True, True, False, False]))
    for method in (result.contrast_error, result.stability):
        with pytest.raises(ValueError, match=r"degradation is 'jpeg'; expected one of"):
            method("jpeg")
        with pytest.raises(ValueError, match=r"against is 'jpeg'; expected one of"):
            method("blur", against="jpeg")
        with pytest.raises(TypeError, match="against is 3; expected names of"):
            method("blur", against=3)
    with pytest.raises(ValueError, match=r"fraction 1\.0 asks for 4 filters; 2 were scored"):
        result.stability("blur", 1.0)


def test_stability_against_the_error_of_the_points():
    """The contrast (2, 0, −3, −1) less (0, 1.5, 0, 0) ranks filter 3 above filter 1."""
    result = with_errors(made(TWO), [[0.0, 1.5, 0.0, 0.0], [0.0] * 4])
    assert result.stability("blur", 0.5) == (0.5, 1.0)
    assert result.stability("blur", 0.25).points == 1
    scored = replace(result, scored=torch.tensor([True, True, False, False]))
    assert scored.stability("blur", 0.5).points == 1, "only what was scored is ranked"


def test_stability_against_other_images():
    """Samples are of one image; filter 0 is best unless it is image 1."""
    result = made({"lq": [[3.0, 0.0, 1.0, 1.0], [0.0, 2.0, 1.0, 1.0]]})
    share = result.stability(None, 0.25).images
    draws = resampled(2, 1, RESAMPLES, torch.Generator().manual_seed(0))
    assert share == pytest.approx(float((draws[:, 1] < 1).double().mean()))
    assert share == result.stability(None, 0.25).images != 1
    paired = made({"a": [[3.0, 9.0, 1.0, 1.0]] * 2, "b": [[1.0, 9.0, 1.0, 1.0]] * 2})
    assert paired.stability("a", 0.25).images == 1


def test_stability_is_the_overlap_with_the_true_ranking_of_many_samples():
    generator = torch.Generator().manual_seed(0)
    told, true = [], []
    for _ in range(20):
        mean = torch.randn(2000, generator=generator).exp()
        scores = mean + mean * torch.randn(2, 2000, generator=generator) / 2
        result = made({"lq": scores}, method="signed")
        told.append(result.stability(None, 0.01).images)
        best = {*result.top(None, 0.01).indices.tolist()}
        true.append(len(best & {*mean.topk(20).indices.tolist()}) / 20)
    assert sum(told) / 20 == pytest.approx(sum(true) / 20, abs=0.07)


def test_ties_of_the_best_are_those_of_the_ranking():
    values = torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0, 3.0, 2.0, -0.0])
    for take in range(1, 9):
        order = values.argsort(descending=True, stable=True)[:take]
        assert is_best(values, take).nonzero().flatten().tolist() == sorted(order.tolist())
    assert kept_shares(is_best(values, 4), torch.stack([values, -values]), 4) == [1.0, 0.25]


# --- estimates of the rules

RULES = [
    {}, {"rule": "averaged", "steps": 6}, {"rule": "averaged", "tol": 1e-3},
    {"rule": "midpoint", "tol": 0.02, "steps": 81}, {"rule": "gauss-kronrod", "steps": 9},
    {"tol": 1e-3, "signed": True},
]  # fmt: skip


@pytest.mark.parametrize("options", RULES, ids=str)
def test_backends_estimate_the_errors_of_the_reference(options):
    networks, (x, gt) = pair(kinked), images(3, size=(8, 6))
    batch = {"lq": {"a": x, "b": 0.5 * x}, "gt": gt}
    expected, result = (
        attribute(*networks, batch, backend=backend, **options)
        for backend in ("reference", "torch")
    )
    assert result.mean_error.shape == (2, 24) and result.mean_error.dtype == torch.float32
    torch.testing.assert_close(result.mean_error, expected.mean_error)
    alone = [attribute(*networks, (x[n : n + 1], gt[n : n + 1]), **options) for n in range(3)]
    for one in alone:
        relative = one.mean_error.abs().sum() / one.scores().abs().sum()
        assert float(relative) == pytest.approx(float(one.error), rel=1e-5)
    torch.testing.assert_close(
        result.mean_error[0], torch.cat([r.mean_error for r in alone]).mean(0)
    )
    mean = attribute(*networks, batch, per_image=False, backend="torch", **options)
    torch.testing.assert_close(mean.mean_error, result.mean_error)


def test_rules_without_an_estimate_have_no_errors(tmp_path):
    result = attribute(*pair(kinked), images(2), rule="midpoint", steps=3)
    assert not result.mean_error.numel() and math.isnan(result.contrast_error(None).points)
    result.save(tmp_path / "r.safetensors")
    assert not Attribution.load(tmp_path / "r.safetensors").mean_error.numel()


# --- merging and files


def test_merge_weighs_errors_by_images():
    two = with_errors(made(TWO))
    one = with_errors(made({name: rows[:1] for name, rows in TWO.items()}), [[0.0] * 4] * 2)
    merged = two.merge(one)
    torch.testing.assert_close(merged.mean_error, torch.tensor(ERRORS) * 2 / 3)
    assert torch.equal(two.merge([]).mean_error, two.mean_error)
    assert not two.merge(made(TWO)).mean_error.numel(), "a part has no estimate"


def test_errors_are_saved(tmp_path):
    result = with_errors(made(TWO))
    result.save(tmp_path / "r.safetensors")
    again = Attribution.load(tmp_path / "r.safetensors")
    assert torch.equal(again.mean_error, result.mean_error)
    assert again.contrast_error("blur") == result.contrast_error("blur")
    tensors, metadata = result.to_tensors()
    del tensors["mean_error"]  # as in files of older versions
    older = Attribution.from_tensors(tensors, metadata)
    assert math.isnan(older.contrast_error("blur").points)


@pytest.mark.parametrize(
    "value, words",
    [
        (torch.zeros(2, 5), r"mean_error is \[2, 5\] of torch.float32, expected \[2, 4\]"),
        (torch.zeros(2, 4).double(), "mean_error is .* of torch.float64, expected"),
        (torch.full((2, 4), math.nan), "mean_error holds values that are not finite"),
    ],
)
def test_errors_that_save_cannot_write(value, words):
    tensors, metadata = made(TWO).to_tensors()
    with pytest.raises(ValueError, match=words):
        Attribution.from_tensors({**tensors, "mean_error": value}, metadata)


# --- words


def test_texts_tell_the_errors_of_contrasts():
    result = with_errors(made(TWO))
    words = "error of the contrast: blur points 10 %, photographs 27 %; noise points 10 %, "
    assert errors_in_words(result).startswith(words)
    assert f"  {errors_in_words(result)}" in repr(result).splitlines()
    assert "<td>0.1</td><td>0.266</td>" in result._repr_html_()
    assert errors_in_words(made(TWO)).startswith("error of the contrast: blur photographs 27 %")
    unknown = made({"lq": TWO["blur"][:1]})
    assert errors_in_words(unknown) == "" and "error of the contrast" not in repr(unknown)


def test_the_terminal_tells_them_too():
    from faigfast.cli.summary import summary

    networks = pair(kinked)
    for net in networks:
        net.faigfast_source = "x"
    result = attribute(*networks, images(2))
    assert errors_in_words(result) in summary(result, networks, [0.1]).splitlines()
