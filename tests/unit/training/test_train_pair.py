"""Training of a pair: its files, its record, and what a stopped run resumes."""

import json
import math

import pytest
import torch
from cases import training
from cases.training import SHORT, equal, files, network, patches, photographs
from safetensors.torch import load_file

from faigfast.training.trainer import Schedule, train, train_pair
from faigfast.zoo import SRResNet

frequent = training.frequent


def run_pair(folder, net=None, **options):
    settings = {"scale": 2, "baseline": SHORT, "target": SHORT, "patch": 4, **options}
    return train_pair(folder, network() if net is None else net, photographs(), **settings)


def test_a_pair_of_files_with_everything_that_made_them(tmp_path):
    baseline, target = run_pair(tmp_path)
    assert files(tmp_path) == [
        "baseline.safetensors", "baseline/log.jsonl", "baseline/run.json", "baseline/state.part",
        "target.safetensors", "target/log.jsonl", "target/run.json", "target/state.part",
        "training.json",
    ]  # fmt: skip
    assert baseline == tmp_path / "baseline.safetensors"
    weights = load_file(baseline), load_file(target)
    assert weights[0].keys() == network().state_dict().keys() == weights[1].keys()
    assert not equal(*weights)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["baseline"]["blur"] == [] and record["target"]["blur"] == [2.0]
    assert record["target"]["noise"] == [0.1] and record["target"]["iterations"] == 12
    assert set(record["photographs"]) == {"a", "b"} and "torch" in record


def test_the_target_starts_from_the_averaged_baseline(tmp_path):
    slow = Schedule(iterations=1, learning_rate=1e-9, batch=2)
    baseline, target = map(load_file, run_pair(tmp_path, target=slow))
    for key, value in baseline.items():
        torch.testing.assert_close(target[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("after", [6, 14, 21])
def test_a_pair_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, frequent, after):
    uninterrupted = list(map(load_file, run_pair(tmp_path / "whole")))
    net, calls = network(), []

    def stop(*_):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    net.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run_pair(tmp_path / "cut", net)
    assert not (tmp_path / "cut" / "target.safetensors").exists()
    assert (tmp_path / "cut" / "baseline.safetensors").exists() == (after > 12)
    resumed = list(map(load_file, run_pair(tmp_path / "cut")))
    assert all(equal(a, b) for a, b in zip(uninterrupted, resumed, strict=True))
    assert files(tmp_path / "whole") == files(tmp_path / "cut")


def test_a_pair_of_another_recipe_is_refused(tmp_path):
    run_pair(tmp_path)
    for options in ({"blur": (3.0,)}, {"noise": ()}, {"patch": 5}, {"probability": 0.4}):
        with pytest.raises(ValueError, match="holds the results of another run"):
            run_pair(tmp_path, **options)
    with pytest.raises(ValueError, match="holds the results of another run"):
        run_pair(tmp_path, SRResNet(width=5, blocks=1, scale=2))


def test_a_pair_of_another_recipe_is_overwritten_when_told(tmp_path):
    run_pair(tmp_path / "one")
    first = list(map(load_file, run_pair(tmp_path / "other", noise=())))
    again = list(map(load_file, run_pair(tmp_path / "one", noise=(), overwrite=True)))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_finished_pair_is_returned(tmp_path):
    first = list(map(load_file, run_pair(tmp_path)))
    second = list(map(load_file, run_pair(tmp_path, network(9))))
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_record_stays_until_the_recipe_is_another(tmp_path):
    run_pair(tmp_path)
    path = tmp_path / "training.json"
    first = path.read_text().replace(torch.__version__, "another")
    path.write_text(first)
    run_pair(tmp_path)
    assert path.read_text() == first
    for damaged in ("{", "[]"):
        path.write_text(damaged)
        run_pair(tmp_path)
        assert json.loads(path.read_text())["torch"] == torch.__version__
    path.write_text(first)
    (tmp_path / "target" / "state.part").unlink()
    run_pair(tmp_path, noise=(0.2,))
    assert json.loads(path.read_text())["torch"] == torch.__version__
    assert json.loads(path.read_text())["target"]["noise"] == [0.2]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"patch": 0}, "patch is 0; expected a positive integer"),
        ({"patch": 4.0}, "patch is 4.0; expected a positive integer"),
        ({"scale": 0}, "scale is 0; expected a positive integer"),
        ({"probability": 7.0}, r"probability is 7.0; expected a number in \[0, 1\]"),
        ({"probability": math.nan}, "probability is nan"),
        ({"blur": (2.0, -2.0)}, "blur is -2.0"),
        ({"noise": (math.inf,)}, "noise is inf"),
    ],
)
def test_a_bad_argument_is_found_before_the_baseline_is_trained(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        run_pair(tmp_path, **options)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises((OSError, ValueError), match="file"):
        train(network(), patches(), SHORT, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_rates_that_are_refused(rate):
    with pytest.raises(ValueError, match=r"learning_rate is .*; expected a positive finite number"):
        Schedule(iterations=1, learning_rate=rate)
