"""Filter sets of another pair."""

import copy

import pytest
import torch
from cases import command_line
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from cases.command_line import one_line
from cases.networks import kinked, pair, randomise

import faigfast
from faigfast import FilterIndex, FilterSet
from faigfast.analysis.masking import mask_sets
from faigfast.analysis.retraining import retrain_all
from faigfast.analysis.study import Study
from faigfast.cli.main import main
from faigfast.training.trainer import Schedule

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


@pytest.fixture(scope="module")
def pair_and_filters():
    baseline, target = pair(kinked)
    images = tuple(torch.rand(2, 1, 3, 6, 6, dtype=torch.float64))
    return baseline, target, faigfast.attribute(baseline, target, images, steps=1).top(None, 0.2)


def test_the_pair_of_a_set_is_known(pair_and_filters):
    baseline, target, filters = pair_and_filters
    other = randomise(copy.deepcopy(target), 9)
    filters.check_pair(baseline, target)
    with pytest.raises(ValueError, match=rf"target is the network {filters.target}, not \w{{64}}"):
        filters.check_pair(baseline, other)
    with pytest.raises(ValueError, match=f"baseline is the network {filters.baseline}, not"):
        filters.check_pair(other, target)
    for networks in ((target, baseline), (target, other), (other, baseline)):
        with pytest.raises(ValueError, match="other order"):
            filters.check_pair(*networks)
    FilterSet(filters.indices).check_pair(other, baseline)  # a set of no known pair fits any
    with pytest.raises(ValueError, match="the networks differ"):
        FilterSet(filters.indices).check_pair(kinked(width=5), target)


def test_the_number_of_filters_counts_without_an_index():
    index = FilterIndex.of(kinked())
    with pytest.raises(ValueError, match="of a network with 99999 filters, not of 24"):
        FilterSet([1], 99999).masks(index)
    assert FilterSet([1], 24).masks(index).keys() == FilterSet([1]).masks(index).keys()


def test_masking_and_retraining_refuse_another_pair(study_parts, tmp_path):  # noqa: F811
    (baseline, target), attributed, kept, result = study_parts
    other = copy.deepcopy(target)
    other.conv_first.weight.data[0] += 0.1
    top = result.top("blur", 0.1)
    with pytest.raises(ValueError, match="set 'blur': the filters' target is the network"):
        mask_sets(baseline, other, {"blur": top}, kept, border=2)
    for networks, words in (((baseline, other), "target is"), ((target, baseline), "other order")):
        study = Study(*networks, attributed, kept, 2)
        with pytest.raises(ValueError, match=f"set 'blur': .*{words}"):
            retrain_all(
                study, photographs(), RECIPES, Schedule(2, 1e-2, 2), tmp_path, fraction=0.1,
                patch=8, sets={"blur": top},
            )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["mask", "retrain"])
def test_commands_refuse_files_of_another_pair(files, here, capsys, command):
    network = faigfast.load_model("b.safetensors")
    index = FilterIndex.of(network)
    argv = [command, "a.pth", "b.safetensors", "--gt", "gt", "--output", str(here), "--quiet"]
    argv += ["--train", "soft"] if command == "retrain" else []
    for header, message in (
        (f"filters={len(index)} target={'0' * 64}", f"target is the network {'0' * 64}, not"),
        ("filters=99999", f"of a network with 99999 filters, not of {len(index)}"),
    ):
        (files / "other.txt").write_text(f"# faigfast {header}\n7\n")
        assert main([*argv, "--sets", "blur=other.txt"]) == 1
        assert message in one_line(capsys)
        assert not here.exists() or not list(here.iterdir())
