"""The order of filters."""

import pytest
import torch
from cases.attributions import made


def test_degradations_with_equal_scores_have_no_contrast_to_rank_by():
    rows = [[1.0, 2.0, 3.0, 0.0]]
    result = made({"blur": rows, "noise": rows})
    with pytest.raises(ValueError, match="contrast of 'blur' against 'noise' is exactly 0 for all"):
        result.ranking("blur")
    assert result.ranking("blur", ()).indices.tolist() == [2, 1, 0, 3]


def test_scores_of_zero_are_not_ranked_by_those_of_others():
    result = made({"blur": [[0.0] * 4], "noise": [[1.0, 2.0, 3.0, 0.0]]})
    assert "scores: exactly 0 for all filters under 'blur', which cannot be ranked" in result.notes
    for against in (None, "noise", ()):
        with pytest.raises(ValueError, match="scores of 'blur' are exactly 0 for all 4 scored"):
            result.top("blur", 0.5, against)
    assert result.ranking("noise").indices.tolist() == [2, 1, 0, 3]


def test_only_scored_filters_count():
    scored = [False, False, True, True]
    result = made({"blur": [[1.0, 2.0, 0.0, 0.0]]}, scored=scored)
    with pytest.raises(ValueError, match="all 2 scored filters"):
        result.ranking(None)
    negative = made({"blur": [[0.0, -1.0, -2.0, 0.0]]}, method="signed")
    assert torch.equal(negative.ranking(None).indices, torch.tensor([0, 3, 1, 2]))
