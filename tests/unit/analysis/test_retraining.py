import copy
import math

import pytest
import torch
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from cases.tables import rows
from cases.tables import value as value_of
from torch import nn

import faigfast.training.trainer
from faigfast.analysis.data_frames import text_table
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.report.figures import retraining_bars
from faigfast.analysis.report.paper import svg
from faigfast.analysis.retraining import (
    compare_retraining,
    retrain,
    retrain_all,
    retraining_data_frame,
    retraining_sentences,
)
from faigfast.analysis.study import Study
from faigfast.analysis.swap_units import random_filters_of_same_layers
from faigfast.data.patches import Patches
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.training.trainer import Schedule, train

SHORT = Schedule(iterations=6, learning_rate=1e-2, batch=2)


def patches():
    return Patches(
        photographs().values(), scale=2, patch=8, blur=(1.5,), probability=1.0, resizes=(1.0,)
    )


def changed(one, other, index):
    """Flat indices of differing filters, and names of other differing tensors."""
    flat, others = [], []
    for key, value in one.state_dict().items():
        differs = value != other.state_dict()[key]
        if key in index.layers:
            place = index.offsets[index.layers.index(key)]
            flat += (differs.flatten(2).any(2).flatten().nonzero() + place).flatten().tolist()
        elif differs.any():
            others.append(key)
    return flat, others


def boundary_filters(index):
    """The first and last filter of every layer."""
    return sorted({n for o in index.offsets for n in (o - 1, o) if 0 <= n < len(index)})


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_the_chosen_filters_learn_and_nothing_else(study_parts, tmp_path, optimizer):  # noqa: F811
    (baseline, _), *_ = study_parts
    index = FilterIndex.of(baseline)
    chosen = boundary_filters(index)  # the authors' script drops some of these
    before = {key: value.clone() for key, value in baseline.state_dict().items()}
    network = retrain(
        baseline, FilterSet(torch.tensor(chosen)), patches(), SHORT, tmp_path, optimizer=optimizer
    )
    assert changed(baseline, network, index) == (chosen, [])
    assert all(torch.equal(v, before[k]) for k, v in baseline.state_dict().items())
    assert not network.training and all(p.requires_grad for p in network.parameters())


def test_momentum_and_decay_do_not_move_what_is_held(study_parts, tmp_path):  # noqa: F811
    (baseline, _), *_ = study_parts

    def heavy(parameters, rate):
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=0.5)

    chosen = [0, 50, 131]
    few = FilterSet(torch.tensor(chosen))
    network = retrain(baseline, few, patches(), SHORT, tmp_path, optimizer=heavy)
    assert changed(baseline, network, FilterIndex.of(baseline)) == (chosen, [])


def test_a_function_is_known_by_the_optimiser_that_it_makes(study_parts, tmp_path):  # noqa: F811
    (baseline, _), *_ = study_parts

    def run(momentum):
        make = lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=momentum)  # noqa: E731
        few = FilterSet(torch.tensor([0]))
        return retrain(baseline, few, patches(), SHORT, tmp_path, optimizer=make)

    first, again = run(0.5), run(0.5)
    assert changed(first, again, FilterIndex.of(baseline)) == ([], [])
    with pytest.raises(ValueError, match=r"of another run.*momentum=0.5.*momentum=0.9"):
        run(0.9)


def test_running_statistics_stand_still(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.PixelShuffle(2)
    ).eval()
    network = retrain(net, FilterSet(torch.tensor([3])), patches(), SHORT, tmp_path)
    assert torch.equal(network[1].running_mean, net[1].running_mean)
    assert int(network[1].num_batches_tracked) == 0
    assert not torch.equal(network[0].weight[1, 0], net[0].weight[1, 0])


def test_a_frozen_baseline_learns_and_stays_frozen(study_parts, tmp_path):  # noqa: F811
    (baseline, _), *_ = study_parts
    frozen = copy.deepcopy(baseline).requires_grad_(False)
    few = FilterSet(torch.tensor([2]))
    network = retrain(frozen, few, patches(), SHORT, tmp_path)
    assert changed(baseline, network, FilterIndex.of(baseline)) == ([2], [])
    assert not any(p.requires_grad for p in frozen.parameters())


def test_all_parameters_learn_as_a_training_does(study_parts, tmp_path):  # noqa: F811
    (baseline, _), *_ = study_parts
    network = retrain(baseline, None, patches(), SHORT, tmp_path / "a")
    flat, others = changed(baseline, network, FilterIndex.of(baseline))
    assert len(flat) > 0.9 * len(FilterIndex.of(baseline)) and "conv_first.bias" in others


def test_a_killed_retraining_goes_on(study_parts, tmp_path, monkeypatch):  # noqa: F811
    (baseline, _), *_ = study_parts
    few = FilterSet(torch.tensor([0, 20, 40]))
    uninterrupted = retrain(baseline, few, patches(), SHORT, tmp_path / "whole")
    monkeypatch.setattr("faigfast.training.trainer.SAVE_EVERY", 2)
    source = patches()
    original = source.batch
    calls = []

    def dies(size, seed):
        calls.append(seed)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(size, seed)

    source.batch = dies
    with pytest.raises(KeyboardInterrupt):
        retrain(baseline, few, source, SHORT, tmp_path / "stopped")
    again = retrain(baseline, few, source, SHORT, tmp_path / "stopped")
    assert len(calls) == 4 + 4  # it resumes after the second iteration
    for key, value in uninterrupted.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    other = FilterSet(torch.tensor([0, 20, 41]))
    with pytest.raises(ValueError, match="holds the results of another run"):
        retrain(baseline, other, patches(), SHORT, tmp_path / "stopped")
    assert faigfast.training.trainer.SAVE_EVERY == 2


@pytest.fixture(scope="module")
def part(study_parts, tmp_path_factory):  # noqa: F811
    nets, _, kept, result = study_parts
    folder = tmp_path_factory.mktemp("retraining")
    filters = result.top("blur", 0.2)
    return compare_retraining(
        *nets, filters, "blur", patches(), kept, SHORT, folder, border=2, seed=4
    )


def test_discovered_random_and_all_are_compared(part, study_parts):  # noqa: F811
    (baseline, _), _, _, result = study_parts
    assert list(part.values) == [
        "baseline", "target", "discovered", "random", SAME_LAYERS, "all",
    ]  # fmt: skip
    index = FilterIndex.of(baseline)
    discovered, _ = changed(baseline, part.networks["discovered"], index)
    chance, _ = changed(baseline, part.networks["random"], index)
    assert set(discovered) <= set(result.top("blur", 0.2).indices.tolist())
    assert len(chance) == pytest.approx(len(discovered), abs=3) and set(chance) != set(discovered)
    data = retraining_data_frame([part])
    base, full, now = (float(part.psnr(n).mean()) for n in ("baseline", "target", "all"))
    expected = (now - base) / (full - base) if full > base else math.nan
    assert value_of(data, "recovered", network="all") == pytest.approx(expected, nan_ok=True)
    assert set(data.filter_count[data.network == "discovered"]) == {part.count}
    assert data.filter_count[data.network == "all"].isna().all()
    head, cells = text_table(data)
    assert [row[1] for row in cells] == list(part.values) and "recovered, %" in head
    assert [row[2] for row in cells] == ["–", "–", *3 * [str(part.count)], "–"]
    (said,) = retraining_sentences([part])
    gains = "retraining the" if full > base else "the target gains nothing over the baseline"
    assert said.startswith(f"blur: {gains}") and "random ones" in said
    assert svg(retraining_bars([part])).startswith("<svg")


def by_layer(index, flat):
    return [index.locate(n)[0] for n in sorted(flat)]


def test_a_control_learns_as_many_filters_in_each_layer(part, study_parts):  # noqa: F811
    (baseline, _), _, _, result = study_parts
    index, top = FilterIndex.of(baseline), result.top("blur", 0.2)
    (control,) = random_filters_of_same_layers(baseline, top, 1, seed=4)
    assert by_layer(index, control.indices.tolist()) == by_layer(index, top.indices.tolist())
    assert control.digest != top.digest
    learned, others = changed(baseline, part.networks[SAME_LAYERS], index)
    assert set(learned) <= set(control.indices.tolist()) and not others
    assert len(learned) == pytest.approx(part.count, abs=3)
    data = retraining_data_frame([part])
    assert set(data.filter_count[data.network == SAME_LAYERS]) == {part.count}
    lead = part.psnr("discovered") - part.psnr(SAME_LAYERS)
    of = {"network": "discovered", "interval": "crops"}
    assert value_of(data, "above_random_same_layers", **of) == pytest.approx(float(lead.mean()))
    assert not len(rows(data, "above_random_same_layers", network=SAME_LAYERS))
    assert "random ones of the same layers" in retraining_sentences([part])[0]
    (axis,) = retraining_bars([part]).axes
    labels = [label.get_text().replace("\n", " ") for label in axis.get_yticklabels()]
    assert any("of the same layers" in label for label in labels)


def test_every_degradation_that_can_be_learnt(study_parts, tmp_path):  # noqa: F811
    nets, attributed, kept, result = study_parts
    study = Study(*nets, attributed, kept, 2, given=result)
    parts = retrain_all(study, photographs(), RECIPES, SHORT, tmp_path, fraction=0.1, patch=8)
    assert [part.degradation for part in parts] == ["blur", "noise"]  # "clean" cannot be learnt
    with pytest.raises(ValueError, match="sets name 'fog'"):
        retrain_all(
            study, photographs(), RECIPES, SHORT, tmp_path, fraction=0.1, patch=8,
            sets={"fog": result.top("blur", 0.1)},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "Bogus"}, "optimizer is 'Bogus'"),
        ({"optimizer": "Tensor"}, "optimizer is 'Tensor'"),
        ({"optimizer": "LBFGS"}, "optimizer is 'LBFGS'"),
        ({"trainable": {"x": torch.ones(1, dtype=torch.bool)}}, "'x', which is no parameter"),
        ({"trainable": {"conv_first.weight": torch.ones(3)}}, "\\[3\\] of torch.float32"),
        (
            {"trainable": {"conv_first.weight": torch.ones(9, 9, dtype=torch.bool)}},
            "\\[9, 9\\] of torch.bool for 'conv_first.weight'",
        ),
    ],
)
def test_refused(study_parts, tmp_path, options, words):  # noqa: F811
    (baseline, _), *_ = study_parts
    with pytest.raises(ValueError, match=words):
        train(baseline, patches(), SHORT, tmp_path, **options)
    assert not list(tmp_path.rglob("*.pth"))


def test_filters_of_another_network_are_refused(study_parts, tmp_path):  # noqa: F811
    (baseline, _), *_ = study_parts
    for filters, words in (
        (FilterSet(torch.tensor([10**6])), "filter 1000000 does not exist"),
        (FilterSet(torch.tensor([1]), 99, "0" * 16), "belong to the network 0000"),
    ):
        with pytest.raises(ValueError, match=words):
            retrain(baseline, filters, patches(), SHORT, tmp_path)
    assert not list(tmp_path.iterdir())
