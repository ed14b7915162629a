"""Analyses on recipes of any steps: crops, and patches of the retraining."""

import json

import pytest
import torch
from cases.analysis import photographs, study_parts  # noqa: F401

from faigfast.analysis.evaluation import crops
from faigfast.analysis.retraining import retrain_all
from faigfast.analysis.study import Study
from faigfast.data import Degradation
from faigfast.training.trainer import Schedule

SHORT = Schedule(iterations=2, learning_rate=1e-3, batch=2)


def test_random_numbers_of_crops_follow_the_photograph_whatever_the_order():
    images = photographs()
    recipes = {"new": Degradation.parse("noise=0.1+jpeg=40"), "old": Degradation(noise=0.1)}
    one, other = (crops(i, recipes, 24) for i in (images, dict(reversed(images.items()))))
    places = [other.names.index(name) for name in one.names]
    assert one.names != other.names
    assert torch.equal(one.lq["new"], other.lq["new"][places])
    assert not torch.equal(one.lq["old"], other.lq["old"][places]), "by position, as ever"
    seeded = crops(images, recipes, 24, seed=1)
    assert not torch.equal(one.lq["new"], seeded.lq["new"])


def test_steps_are_learnt_too(study_parts, tmp_path):  # noqa: F811
    nets, attributed, kept, result = study_parts
    study = Study(*nets, attributed, kept, 2, given=result)
    recipes = {
        "blur": Degradation.parse("motion=3+jpeg=40"),
        "noise": Degradation(noise=0.1),
        "clean": Degradation.parse("down"),
    }
    given = {"fraction": 0.1, "patch": 8}
    parts = retrain_all(study, photographs(), recipes, SHORT, tmp_path, **given)
    assert [part.degradation for part in parts] == ["blur", "noise"]
    runs = {
        name: json.loads((tmp_path / f"{name}-all" / "run.json").read_text())
        for name in ("blur", "noise")
    }
    assert "motion=3:0+jpeg=40" in json.dumps(runs["blur"])
    recipes["blur"] = Degradation.parse("motion=3+jpeg=41")
    with pytest.raises(ValueError, match="holds the results of another run"):
        retrain_all(study, photographs(), recipes, SHORT, tmp_path, **given)
