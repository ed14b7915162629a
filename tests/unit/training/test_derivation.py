"""The record of a derivation says what was not reached."""

import pytest

from faigfast.training.derivation import Derivation


def record(noise):
    return Derivation(
        iterations=4,
        stopped="stopped at the end of the schedule",
        diverged=False,
        target={"clean": 30.0, "noise=0.1": 25.0},
        baseline={"clean": 31.0, "noise=0.1": noise},
        bicubic={"clean": 29.0, "noise=0.1": 21.0},
        forgotten=("noise=0.1",),
        kept=(),
        barrier={"clean": 0.0, "noise=0.1": 0.0},
        distance=0.02,
    )


@pytest.mark.parametrize(("noise", "warns"), [(24.9, True), (23.1, True), (22.9, False)])
def test_an_ability_that_is_left_is_named_with_the_remedy(noise, warns):
    text = str(record(noise))
    assert ("NOT FORGOTTEN" in text) is warns
    if warns:
        assert f"noise=0.1 ({noise - 21:.2f} of 4.00 dB)" in text and "more iterations" in text
