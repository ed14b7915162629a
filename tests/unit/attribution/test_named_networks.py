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
        call(model_a=a)
    with pytest.raises(TypeError, match=r"baseline is a NoneType; .* as model_a or baseline"):
        call(target=b)
    with pytest.raises(TypeError, match=r"model_a is a NoneType; .* as model_a or baseline"):
        call()


@pytest.mark.parametrize("names", [("model_a", "model_b"), ("baseline", "target")])
@pytest.mark.parametrize("call", [attribute, Attributor])
def test_errors_name_the_networks_as_the_caller_did(call, names):
    a, b = pair(kinked)
    batch = {"batch": images(1)} if call is attribute else {}
    for place, name in enumerate(names):
        given = dict(zip(names, (a, b), strict=True)) | {name: 3}
        with pytest.raises(TypeError, match=f"^{names[place]} is a int; expected a torch"):
            call(**given, **batch)
    empty = {names[0]: a, names[1]: torch.nn.ReLU()}
    with pytest.raises(ValueError, match=f"^{names[1]} has no parameters"):
        call(**empty, **batch)


def test_positional_networks_have_the_names_of_the_signature():
    net = pair(kinked)[1]
    with pytest.raises(TypeError, match=r"^model_a is a int"):
        attribute(3, net, images(1))
    with pytest.raises(TypeError, match=r"^baseline is a int"):
        Attributor(3, net)


def test_a_missing_batch():
    with pytest.raises(TypeError, match=r"batch is a NoneType; expected \(x, gt\)"):
        attribute(*pair(kinked))
