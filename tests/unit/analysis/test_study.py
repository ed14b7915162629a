import dataclasses

import pytest
import torch
from cases.analysis import small_pair, study_parts  # noqa: F401

import faigfast
from faigfast.analysis.baselines import METHODS, rank_by
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.study import Study, study_identity


@pytest.fixture
def study(study_parts, tmp_path):  # noqa: F811
    nets, attributed, kept, _ = study_parts
    finished_parts = FinishedParts(tmp_path, study_identity(*nets, attributed, kept))
    # Nine crops are attributed.
    return Study(*nets, kept, attributed, 2, finished_parts=finished_parts, steps=2)


def equal(one, other):
    return all(
        torch.equal(one.mean(d), other.mean(d)) for d in (*one.degradations, *other.degradations)
    )


@pytest.mark.parametrize("method", METHODS)
def test_parts_make_the_whole(study, method):
    result = study.attribution(method)
    batch = {"lq": study.attributed.lq, "gt": study.attributed.gt}
    at_once = rank_by(method, study.baseline, study.target, batch, steps=2)
    assert result.setting == at_once.setting and result.degradations == at_once.degradations
    for name in at_once.degradations:
        torch.testing.assert_close(result.mean(name), at_once.mean(name), rtol=1e-4, atol=1e-7)


def test_finished_parts_are_read_again(study, monkeypatch):
    first = study.attribution()

    def never(*args, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr("faigfast.analysis.study.rank_by", never)
    assert equal(first, study.attribution())
    # Other crops, points or options make other parts.
    for change in ({"attributed": study.measured}, {"steps": 3}, {"options": {"rule": "graded"}}):
        with pytest.raises(AssertionError, match="computed again"):
            dataclasses.replace(study, **change).attribution()


def test_a_given_attribution_is_taken_or_refused(study, study_parts):  # noqa: F811
    nets, attributed, _, result = study_parts
    given = dataclasses.replace(study, given=result)
    assert given.attribution() is result
    tops = given.tops(0.1)
    assert list(tops) == ["blur", "noise", "clean"]
    assert torch.equal(tops["noise"].indices, result.top("noise", 0.1).indices)
    named = dataclasses.replace(given, contrasts=(Contrast("mine", "blur", ("clean",)),))
    expected = result.top("blur", 0.1, "clean")
    assert torch.equal(named.tops(0.1)["mine"].indices, expected.indices)
    alone = faigfast.attribute(*nets, (attributed.lq["blur"], attributed.gt), steps=2)
    with pytest.raises(ValueError, match="the attribution is of lq; expected"):
        dataclasses.replace(study, given=alone)


def test_a_study_of_another_pair_does_not_share_parts(study, study_parts, tmp_path):  # noqa: F811
    _, attributed, kept, _ = study_parts
    study.attribution()
    others = small_pair(seed=5)
    with pytest.raises(ValueError, match="another run: baseline was"):
        FinishedParts(tmp_path, study_identity(*others, attributed, kept))
