"""Scores of filters beside their exact ablation."""

import copy

import pytest
import torch
from cases.tables import value
from torch import nn

from faigfast.analysis.ablation import ablate
from faigfast.analysis.faithfulness import (
    PREDICTORS,
    _agreement,
    _ranks_and_best,
    faithfulness,
    predictors,
)

pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def case():
    """A linear network, whose loss is quadratic in its weights, and images of two kinds."""
    torch.manual_seed(0)
    baseline = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1))
    target = copy.deepcopy(baseline)
    with torch.no_grad():
        for p in target.parameters():
            p += 1e-3 * torch.randn_like(p)
    gt = torch.rand(3, 3, 8, 8)
    batch = {"lq": {"blur": torch.rand(3, 3, 8, 8), "noise": torch.rand(3, 3, 8, 8)}, "gt": gt}
    return baseline, target, batch


@pytest.fixture(scope="module")
def compared(case):
    baseline, target, batch = case
    ablation = ablate(baseline, target, batch)
    scores = predictors(baseline, target, batch, steps=4)
    return ablation, scores, faithfulness(ablation, scores, 0.1)


def test_small_changes_are_what_the_gradient_says(compared):
    """Between two close networks the first order is everything: an oracle for the comparison."""
    _, _, table = compared
    for name in ("blur", "noise"):
        for metric in ("rank_correlation", "recall"):
            assert value(
                table, metric, degradation=name, method="signed_gradient", reference="signed"
            ) == pytest.approx(1, abs=0.01)
        assert (
            abs(value(table, "rank_correlation", degradation=name, method="random",
                      reference="absolute")) < 0.5
        )  # fmt: skip


def test_every_method_reference_and_interval(compared):
    _, scores, table = compared
    assert set(scores) == set(table["method"]) == set(PREDICTORS)
    signed = table[table["reference"] == "signed"]
    assert set(signed["method"]) == {"signed", "signed_gradient"}
    known = table.dropna(subset=["ci95_low"])
    assert len(known) == len(table)
    assert (known["ci95_low"] <= known["ci95_high"]).all()


def test_an_ablation_agrees_with_itself(compared):
    ablation, _, _ = compared
    own = {"itself": {name: ablation.change(name) for name in ablation.degradations}}
    table = faithfulness(ablation, own, 0.05)
    assert (table["value"] > 1 - 1e-12).all()
    assert set(table["reference"]) == {"absolute", "contrast"}


def test_one_image_has_no_interval(case):
    baseline, target, batch = case
    x, gt = batch["lq"]["blur"][:1], batch["gt"][:1]
    ablation = ablate(baseline, target, (x, gt))
    table = faithfulness(ablation, predictors(baseline, target, (x, gt), ["change"]), 0.1)
    assert "ci95_low" not in table and set(table["reference"]) == {"absolute"}


def test_ranks_count_ties_by_their_mean():
    one, other = torch.tensor([1.0, 2, 2, 3]), torch.tensor([1.0, 3, 2, 4])
    agreements = [_agreement(_ranks_and_best(one, 2), x, 2) for x in (one, -one, other)]
    assert [a for a, _ in agreements] == pytest.approx([1, -1, 0.9486833])
    assert [recall for _, recall in agreements] == [1, 0.5, 1]


def test_what_does_not_fit_is_refused(case, compared):
    baseline, target, batch = case
    ablation, scores, _ = compared
    with pytest.raises(ValueError, match="expected some of faig"):
        predictors(baseline, target, batch, ["fast"])
    some = ablate(baseline, target, batch, filters=[0, 1])
    with pytest.raises(ValueError, match="leaves filters out"):
        faithfulness(some, scores)
    with pytest.raises(ValueError, match=r"'faig' on 'blur' are \[2, 36\]"):
        faithfulness(ablation, {"faig": {"blur": torch.rand(2, 36), "noise": torch.rand(3, 36)}})
