"""Tracker: snapshots of a training, top sets, masks, restrictions and files."""

import copy

import pytest
import torch
from cases.networks import images, untouched
from cases.tables import check_documented
from cases.tracker import NAMES, batch, network, optimizer_of, tracker_of, train
from torch import nn

import faigfast
from faigfast.analysis.columns import COLUMNS, described
from faigfast.io.tensor_file import save_tensors
from faigfast.training import Rankings, Tracker
from faigfast.training.frozen_entries import FrozenEntries

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def observed():
    """A training of 200 steps with a tracker, and the same without."""
    ends = []
    for tracked in (False, True):
        net = network()
        tracker = tracker_of(net, every=20) if tracked else None
        torch.manual_seed(7)
        snapshots = train(net, optimizer_of(net), 200, tracker)
        ends.append((net, torch.get_rng_state()))
    return ends, tracker, snapshots


def test_an_observed_training_ends_with_the_same_weights(observed):
    ((alone, state), (watched, watched_state)), *_ = observed
    assert torch.equal(state, watched_state)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key


def test_history_of_200_steps(observed):
    _, tracker, _ = observed
    history = tracker.history
    check_documented("history", history.columns)
    assert all(name in COLUMNS for name in history) and described(history)["columns"]
    assert list(history.step) == [n for n in range(20, 201, 20) for _ in NAMES]
    assert list(history.degradation) == [*NAMES] * 10
    assert history.previous_common_fraction[:2].isna().all()
    assert history.previous_common_fraction[2:].between(0, 1).all()
    assert (history.last_common_fraction[-2:] == 1).all()
    assert history.last_common_fraction.min() < 1  # the ranking changed
    assert history.barrier_median.notna().all() and history.loss_baseline.nunique() == 2
    # Seconds of all snapshots so far, over the time since the first step.
    assert (history.seconds > 0).all() and history["share"].between(0, 1, "neither").all()
    kept = tracker.rankings.snapshots
    assert tracker.seconds == sum(s.seconds for s in kept)
    assert tracker.share == tracker.seconds / kept[-1].elapsed == history["share"].iloc[-1]
    assert [s.elapsed for s in kept] == sorted(s.elapsed for s in kept)
    assert f"{tracker.share:.1%}" in repr(tracker)
    twenty, last = (tracker.top("noise", step).indices.tolist() for step in (180, None))
    common = len({*twenty} & {*last}) / len(last)
    assert history.previous_common_fraction.iloc[-1] == pytest.approx(common)


def test_a_snapshot_is_an_attribution_from_the_baseline(observed):
    _, tracker, snapshots = observed
    for step, net in ((20, snapshots[0]), (200, snapshots[-1])):
        result = faigfast.attribute(network(), net, batch(), steps=2)
        for name in NAMES:
            assert tracker.top(name, step) == result.top(name, 0.2)
        kept = tracker.rankings.at(step).result
        assert torch.equal(kept.losses, result.losses)
        assert kept.by_degradation["blur"].shape == (1, len(result.index))
        assert torch.allclose(kept.mean("blur"), result.mean("blur"), rtol=1e-5)


def test_the_tracked_network_is_left_as_it_is():
    net = network().train()
    tracker = tracker_of(net, every=1)
    train(net, optimizer_of(net), 1)
    with untouched(net):
        assert tracker.step(net).step == 1


def test_the_baseline_is_a_copy():
    net, start = network(), copy.deepcopy(network())
    tracker = tracker_of(net)
    train(net, optimizer_of(net), 5, tracker)
    result = faigfast.attribute(start, net, batch(), steps=2)
    assert tracker.rankings.at().result.setting.baseline == result.setting.baseline


def test_weights_written_through_data_are_read_again():
    net = network()
    tracker = tracker_of(net, every=1)
    train(net, optimizer_of(net), 1, tracker)
    net[0].weight.data.mul_(1.5)
    tracker.step(net)
    result = faigfast.attribute(network(), net, batch(), steps=2)
    assert torch.equal(tracker.rankings.at().result.losses, result.losses)


def test_steps_are_counted_or_given():
    net, tracker = network(), tracker_of(network())
    train(net, optimizer_of(net), 1)
    assert [bool(tracker.step(net)) for _ in range(10)] == ([False] * 4 + [True]) * 2
    assert tracker.step(net, 10) is None  # gradients were accumulated
    assert tracker.step(net, 14) is None and tracker.step(net, 16).step == 16  # passed 15
    assert tracker.rankings.steps == (5, 10, 16)
    with pytest.raises(ValueError, match="step is 15 after 16; expected ascending"):
        tracker.step(net, 15)
    for wrong in (-1, True, 1.5):
        with pytest.raises(ValueError, match=r"step is .*; expected a number of steps"):
            tracker.step(net, wrong)
    late = tracker_of(network())
    assert late.step(net, 0) is None and late.step(net, 1) is None and late.step(net, 5)
    later = tracker_of(network())
    assert later.step(net, 102) is None and later.step(net, 105)


def test_images_may_be_an_iterator_of_batches():
    net = network()
    parts = [batch(1), batch(2)]
    tracker = tracker_of(net, images=iter(parts))
    train(net, optimizer_of(net), 10, tracker)
    assert [s.result.images for s in tracker.rankings.snapshots] == [3, 3]


def test_a_loader_that_shuffles_draws_nothing_from_the_training():
    data = torch.utils.data.TensorDataset(*images(4, dtype=torch.float32))
    loader = torch.utils.data.DataLoader(data, 2, shuffle=True)
    net, tracker = network(), tracker_of(network(), every=1, images=loader)
    train(net, optimizer_of(net), 1)
    state = torch.get_rng_state()
    assert tracker.step(net).result.images == 4
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("train_", ["discovered", "others"])
def test_masks_mark_the_filters(observed, train_):
    (_, (net, _)), tracker, _ = observed
    masks = tracker.masks(nn.DataParallel(net), "noise", train_)
    chosen = {*tracker.top("noise")}
    assert masks.keys() == dict(net.named_parameters()).keys()
    for name, value in net.named_parameters():
        assert masks[name].dtype == torch.bool and masks[name].shape == value.shape
        if value.ndim < 4:
            assert (masks[name] == (train_ == "others")).all()
            continue
        for out in range(value.shape[0]):
            for column in range(value.shape[1]):
                inside = (name, out, column) in chosen
                assert (masks[name][out, column] == (inside == (train_ == "discovered"))).all()
    FrozenEntries(net, masks)  # as `train` takes them
    before = tracker.masks(net, "noise", train_, step=20)
    assert any(not torch.equal(before[name], masks[name]) for name in masks)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("train_", ["discovered", "others"])
def test_frozen_entries_do_not_move_until_the_next_ranking(kind, train_):
    net = network()
    tracker = tracker_of(net)
    optimizer = optimizer_of(net, kind)
    rankings = set()
    with tracker.restrict(net, optimizer, "noise", train_) as restriction:
        before = copy.deepcopy(dict(net.named_parameters()))
        train(net, optimizer, 5, tracker)
        assert not any(torch.equal(before[n], p) for n, p in net.named_parameters())
        for first in range(6, 50, 5):
            before = copy.deepcopy(dict(net.named_parameters()))
            masks = tracker.masks(net, "noise", train_)
            rankings.add(tracker.top("noise").digest)
            train(net, optimizer, 5, tracker, first)
            for name, value in net.named_parameters():
                assert torch.equal(value[~masks[name]], before[name][~masks[name]]), name
            assert any((p != before[n])[masks[n]].any() for n, p in net.named_parameters())
    assert len(rankings) > 1  # it was ranked again
    assert not restriction.active
    before = copy.deepcopy(dict(net.named_parameters()))
    train(net, optimizer, 5, tracker, 51)
    assert not any(torch.equal(before[n], p) for n, p in net.named_parameters())


def test_gradients_of_frozen_entries_are_zero_even_if_infinite(observed):
    (_, (net, _)), tracker, _ = observed
    net = copy.deepcopy(net)
    with tracker.restrict(net, optimizer_of(net), "blur"):
        sum(p.sum() * float("inf") for p in net.parameters()).backward()
        masks = tracker.masks(net, "blur")
        for name, value in net.named_parameters():
            assert (value.grad[~masks[name]] == 0).all() and value.grad[masks[name]].isinf().all()
    with tracker.restrict(net, optimizer_of(net), "blur"):  # gradients of before, ranked at once
        assert all((p.grad[~masks[n]] == 0).all() for n, p in net.named_parameters())


def test_save_and_load(observed, tmp_path):
    _, tracker, _ = observed
    tracker.save(tmp_path / "rankings.safetensors")
    loaded = Rankings.load(tmp_path / "rankings.safetensors")
    assert loaded.to_frame().equals(tracker.history)
    assert loaded.top("blur", 40).indices.equal(tracker.top("blur", 40).indices)
    save_tensors(tmp_path / "other", {"a": torch.ones(1)})
    with pytest.raises(ValueError, match="of the format None; expected 'faigfast rankings 1'"):
        Rankings.load(tmp_path / "other")


def test_an_interrupted_training_goes_on(tmp_path):
    net = network()
    tracker = tracker_of(net, folder=tmp_path)
    optimizer = optimizer_of(net)
    train(net, optimizer, 13, tracker)
    history, elapsed = tracker.history, tracker.rankings.at().elapsed
    again = tracker_of(network(), folder=tmp_path)
    assert again.history.equals(history)
    train(net, optimizer, 3, again, first=14)
    assert again.rankings.steps == (5, 10, 15) and again.rankings.at().elapsed > elapsed
    # From a checkpoint of step 7 on, the snapshots of 10 and 15 are taken again.
    third = tracker_of(network(), folder=tmp_path)
    train(net, optimizer, 1, third, first=8)
    assert third.rankings.steps == (5,)
    assert tracker_of(network(), folder=tmp_path).rankings.steps == (5,)
    # Without numbers it counts on from the last snapshot.
    assert [bool(tracker_of(network(), folder=tmp_path).step(net)), third.step(net)] == [
        False,
        None,
    ]
    with pytest.raises(ValueError, match="holds the results of another run: baseline"):
        tracker_of(network(1), folder=tmp_path)
    with pytest.raises(ValueError, match="another run: images"):
        tracker_of(network(), images=batch(1), folder=tmp_path)
    with pytest.raises(ValueError, match="another run: settings"):
        tracker_of(network(), steps=3, folder=tmp_path)
    fresh = tracker_of(network(1), folder=tmp_path, overwrite=True)
    assert fresh.rankings.steps == ()
    train(net, optimizer, 5, fresh)
    assert tracker_of(network(1), folder=tmp_path).rankings.steps == (5,)


def test_a_damaged_snapshot_counts_as_missing(tmp_path):
    net = network()
    train(net, optimizer_of(net), 10, tracker_of(net, folder=tmp_path))
    (tmp_path / "step-000000005.part").write_bytes(b"damaged")
    assert tracker_of(network(), folder=tmp_path).rankings.steps == (10,)


def test_wrong_arguments_are_refused_before_the_training():
    net = network()
    refused = (
        (ValueError, "every is 0", {"every": 0}),
        (ValueError, "every is True", {"every": True}),
        (ValueError, "fraction is 2", {"fraction": 2}),
        (TypeError, "per_image is given", {"per_image": True}),
        (ValueError, "steps", {"steps": 0}),
        (ValueError, "rule", {"rule": "simpson"}),
        (ValueError, "'gt' is missing", {"images": {"lq": batch()["lq"]}}),
        (TypeError, "x is of torch.int64", {"images": (torch.ones(1, 3, 4, 4).long(),) * 2}),
    )
    for kind, message, options in refused:
        with pytest.raises(kind, match=message):
            tracker_of(net, **options)
    tracker = tracker_of(net)
    optimizer = optimizer_of(net)
    with pytest.raises(ValueError, match="train is 'both'; expected one of"):
        tracker.restrict(net, optimizer, "blur", "both")
    for name in ("rain", None):
        with pytest.raises(ValueError, match=r"degradation is .*; expected one of"):
            tracker.restrict(net, optimizer, name)
    with pytest.raises(ValueError, match="optimizer steps no parameter of model"):
        tracker.restrict(net, optimizer_of(network()), "blur")
    with pytest.raises(TypeError, match="optimizer is a int"):
        tracker.restrict(net, 3, "blur")
    with pytest.raises(ValueError, match="no snapshot was taken yet"):
        tracker.masks(net, "blur")
    train(net, optimizer, 5, tracker)
    with pytest.raises(ValueError, match="step is 7; expected one of 5"):
        tracker.top("blur", 7)


def test_filters_of_weight_norm_cannot_be_kept():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1)))
    x, gt = images(1, dtype=torch.float32)
    tracker = Tracker(net, (x, gt), every=1, steps=1, fraction=0.5)
    with torch.no_grad():
        net[0].parametrizations.weight.original1.mul_(torch.rand(3, 3, 3, 3))
    tracker.step(net)
    with pytest.raises(ValueError, match="not the weight of its layer itself"):
        tracker.masks(net)


def test_weights_of_the_baseline_do_not_stop_the_training():
    net = network()
    tracker = tracker_of(net, every=1)
    with pytest.warns(UserWarning, match="no snapshot at step 1: the weights are still"):
        assert tracker.step(net) is None
    with torch.no_grad():
        net[0].weight += 0.1
    assert tracker.step(net).step == 2 and tracker.rankings.steps == (2,)


def test_a_snapshot_without_a_ranking_keeps_the_restriction():
    net = network()
    tracker = tracker_of(net, every=1)
    optimizer = optimizer_of(net)
    with tracker.restrict(net, optimizer, "blur"):
        train(net, optimizer, 1, tracker)
        before = tracker.top("blur")
        with torch.no_grad():  # filters of the baseline, and one bias that is not
            net.load_state_dict(tracker._baseline.state_dict())
            net[0].bias += 0.1
        with pytest.warns(UserWarning, match="step 2 ranks no filter"):
            tracker.step(net)
        assert len(before) and tracker.rankings.steps == (1, 2)
