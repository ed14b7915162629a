"""The two names of each network: model_a or baseline, model_b or target."""

import pytest
import torch
from cases.networks import images, kinked, pair

from faigfast import Attributor, attribute


def test_both_names_give_the_same_result():
    a, b = pair(kinked)
    batch = images(1)
    expected = attribute(a, b, batch, steps=2).scores()
    for result in (
        attribute(model_a=a, model_b=b, batch=batch, steps=2),
        attribute(baseline=a, target=b, batch=batch, steps=2),
        attribute(a, target=b, batch=batch, steps=2),
        Attributor(a, b, steps=2)(batch),
        Attributor(baseline=a, target=b, steps=2)(batch),
        Attributor(model_a=a, model_b=b, steps=2)(batch),
    ):
        assert torch.equal(result.scores(), expected)


@pytest.mark.parametrize("call", [attribute, Attributor])
def test_a_network_under_two_names_or_none(call):
    a, b = pair(kinked)
    with pytest.raises(TypeError, match="model_a and baseline are both given; expected one"):
        call(model_a=a, model_b=b, baseline=a)
    with pytest.raises(TypeError, match="model_b and target are both given; expected one"):
        call(model_a=a, model_b=b, target=b)
    with pytest.raises(TypeError, match=r"model_b is a NoneType; .* as model_b or target"):
        call(a)
    with pytest.raises(TypeError, match="model_a is a NoneType"):
        call(target=b)


def test_a_missing_batch():
    with pytest.raises(TypeError, match=r"batch is a NoneType; expected \(x, gt\)"):
        attribute(*pair(kinked))
