"""Names at the top level: what dir shows, rooms by attribute, shipped pairs and photographs."""

import subprocess
import sys

import pytest
import torch

import faigfast
from faigfast.data import KEPT_OUT, TRAINING, photograph
from faigfast.zoo.pairs import PAIRS


def test_dir_shows_the_public_names_alone():
    names = dir(faigfast)
    assert {*faigfast.__all__} <= {*names} and "import_module" not in names
    assert [name for name in names if name.startswith("_")] == ["__version__"]
    assert {*names} - {*faigfast.__all__} == {"analysis", "data", "training"}
    for name in names:
        assert getattr(faigfast, name) is not None, name


def test_public_names_are_objects_not_modules():
    for name in faigfast.__all__:
        assert not isinstance(getattr(faigfast, name), type(sys)), name


def test_rooms_are_there_by_attribute():
    code = (
        "import warnings, faigfast\n"
        "print(faigfast.data.photographs.__name__, faigfast.analysis.__name__)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print(faigfast.findings.masking.mask.__module__)\n"
        "print(*{one.category.__name__ for one in caught})\n"
        "print(hasattr(faigfast.findings, 'nothing'), hasattr(faigfast, 'nothing'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "photographs faigfast.analysis", "faigfast.analysis.masking", "DeprecationWarning",
        "False False",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_shipped_pair_by_name(name):
    baseline, target = faigfast.shipped_pair(name=name)
    assert type(baseline) is type(target) and not target.training


@pytest.mark.parametrize("name", ["srresnet", None, ("a",)])
def test_an_unknown_pair_lists_the_names(name):
    with pytest.raises(ValueError, match=f"pair is .*; expected one of {', '.join(PAIRS)}"):
        faigfast.shipped_pair(name)


def test_a_photograph_by_name():
    pytest.importorskip("skimage")
    image = photograph()
    assert image.shape[0] == 3 and image.dtype == torch.float32 and 0 <= image.min() < 0.5
    assert torch.equal(photograph("chelsea.png"), image)
    assert photograph("astronaut", channels=1).shape == (1, 512, 512)
    for name in (*KEPT_OUT, *TRAINING):
        assert photograph(name).ndim == 3


@pytest.mark.parametrize("name", ["cat", "", None, 3, ["chelsea"], "../coffee.png"])
def test_an_unknown_photograph_lists_the_names(name):
    pytest.importorskip("skimage")
    with pytest.raises(ValueError, match=r"photograph is .*; expected one of astronaut, chelsea"):
        photograph(name)
