"""Folders degraded by texts, functions and recipes of any steps."""

import numpy as np
import pytest
import torch

from faigfast.data import Degradation, DegradedFolder, write_image

RECIPE = "blur=1+poisson=1+jpeg=40"


def noisy(x, generator):
    return x + 0.2 * torch.randn(x.shape, generator=generator)


@pytest.fixture
def photographs(tmp_path):
    for seed, name in enumerate(("b", "c", "d")):
        image = torch.rand(3, 24, 28, generator=torch.Generator().manual_seed(seed))
        write_image(tmp_path / "gt" / f"{name}.png", image)
    return tmp_path / "gt"


def test_texts_and_functions_serve_as_recipes(photographs):
    made = DegradedFolder(
        photographs, {"old": Degradation.parse("noise=0.1"), "own": noisy}, scale=2
    )
    assert made.degradations["own"] == Degradation(steps=(noisy,))
    texts = DegradedFolder(photographs, {"new": RECIPE, "old": "noise=0.1"}, scale=2)
    assert texts.degradations["new"] == Degradation.parse(RECIPE) and texts.scale == 2
    for name in ("new", "old"):
        assert texts[1]["lq"][name].shape == (3, 12, 14)
    assert torch.equal(made[1]["lq"]["old"], texts[1]["lq"]["old"])


def test_random_numbers_follow_the_name_whatever_other_images_are_there(photographs):
    def read():
        folder = DegradedFolder(photographs, {"new": RECIPE, "own": noisy}, seed=4, scale=2)
        return {item["name"]: item["lq"] for item in map(folder.__getitem__, range(len(folder)))}

    before = read()
    (photographs / "b.png").rename(photographs / "a.png")
    (photographs / "c.png").unlink()
    after = read()
    assert list(after) == ["a", "d"]
    for name in ("new", "own"):
        assert torch.equal(after["d"][name], before["d"][name])
        assert not torch.equal(after["a"][name], before["b"][name])


def test_the_papers_recipes_keep_the_seed_by_position(photographs):
    folder = DegradedFolder(photographs, {"noise": Degradation(noise=0.1)}, seed=4)
    for position, name in enumerate(folder.names):
        seed = int(np.random.SeedSequence((4, position)).generate_state(1)[0])
        item = folder[position]
        assert item["name"] == name
        assert torch.equal(
            item["lq"]["noise"][None], Degradation(noise=0.1)(item["gt"][None], seed)
        )


@pytest.mark.parametrize(
    ("degradations", "scale", "error", "words"),
    [
        ({"a": "jpeg=40"}, None, ValueError, "scale is None"),
        ({"a": Degradation.parse("jpeg=4")}, 3, ValueError, "'a': 2.*one for all"),
        ({"a": Degradation.parse("jpeg=4", 3), "b": "jpeg=4"}, 2, ValueError, "'a': 3, 'b': 2"),
        ({"a": "jpg=40"}, 2, ValueError, "did you mean 'jpeg'"),
        ({"a": 3}, 2, TypeError, "a degradation is 3"),
    ],
)
def test_refused(photographs, degradations, scale, error, words):
    with pytest.raises(error, match=words):
        DegradedFolder(photographs, degradations, scale=scale)


def test_errors_of_functions_name_the_file_and_the_degradation(photographs):
    folder = DegradedFolder(photographs, {"own": lambda x, g: x[:, 1:]}, scale=2)
    with pytest.raises(ValueError, match=r"b\.png, degradation 'own': .*returns \[3, 23, 28\]"):
        folder[0]
