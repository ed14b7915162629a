"""Training of a pair on recipes: what is recorded, resumed and refused."""

import json

import pytest
import torch
from cases.training import SHORT, equal, network, photographs
from safetensors.torch import load_file

from faigfast.data import Degradation
from faigfast.training.trainer import train_pair

RECIPES = ["anisotropic=1:2:30+noise=0.1+jpeg=40", Degradation.parse("webp=50")]


def fog(x, generator):
    return 0.5 + x / 2 + 0.01 * torch.randn(x.shape, generator=generator)


def run_pair(folder, recipes, net=None, **options):
    settings = {"scale": 2, "baseline": SHORT, "target": SHORT, "patch": 4, **options}
    net = network() if net is None else net
    return train_pair(folder, net, photographs(), recipes=recipes, **settings)


def test_recipes_replace_blur_and_noise_and_are_recorded(tmp_path):
    run_pair(tmp_path, RECIPES)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["target"]["recipes"] == [
        "anisotropic=1:2:30+noise=0.1+jpeg=40, bilinear /2", "webp=50, bilinear /2",
    ]  # fmt: skip
    assert record["target"]["blur"] == record["target"]["noise"] == []
    assert "recipes" not in record["baseline"]
    before = (tmp_path / "training.json").read_bytes()
    run_pair(tmp_path, [Degradation.parse(RECIPES[0]), "webp=50"])
    assert (tmp_path / "training.json").read_bytes() == before
    for options in (
        {"recipes": RECIPES[:1]},
        {"recipes": ()},
        {"recipes": RECIPES, "noise": (1.0,)},
    ):
        with pytest.raises(ValueError, match="holds the results of another run"):
            run_pair(tmp_path, **options)


@pytest.mark.parametrize("recipes", [RECIPES, ["realesrgan"], [fog]])
def test_a_stopped_training_ends_as_if_it_had_not_been(tmp_path, recipes):
    uninterrupted = list(map(load_file, run_pair(tmp_path / "one", recipes)))
    net, calls = network(), []

    def stop(*_):
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt

    net.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run_pair(tmp_path / "cut", recipes, net)
    resumed = list(map(load_file, run_pair(tmp_path / "cut", recipes)))
    assert all(equal(a, b) for a, b in zip(uninterrupted, resumed, strict=True))
    clean = load_file(run_pair(tmp_path / "clean", (), blur=(), noise=())[1])
    assert not equal(clean, resumed[1])


def test_a_training_on_a_lambda_is_not_resumed(tmp_path):
    recipes = [lambda x, generator: x / 2]
    run_pair(tmp_path, recipes)
    with pytest.raises(ValueError, match=r"nothing identifies the recipe '.*<lambda>'.*overwrite="):
        run_pair(tmp_path, recipes)
    run_pair(tmp_path, recipes, overwrite=True)


def test_wrong_recipes_are_refused_before_the_first_training(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'jpeg'"):
        run_pair(tmp_path, ["jpg=3"])
    with pytest.raises(TypeError, match="a degradation is 3"):
        run_pair(tmp_path, [3])
    assert list(tmp_path.iterdir()) == []
