"""Attributor: one pair, many batches, and networks that change, move or fail in between."""

import gc
import threading
import weakref
from contextlib import nullcontext

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, kinked, pair, same, smooth, untouched
from torch import nn

from faigfast import Attributor, attribute
from faigfast.engine import graph as graphs
from faigfast.engine import integrate

pytestmark = pytest.mark.usefixtures("wide_chunks")
SIZES = [(6, 5), (4, 7), (24, 19), (6, 5)]


def close(one, two):
    scores = (result.by_degradation["lq"] for result in (one, two))  # per image, or the mean
    torch.testing.assert_close(*scores, rtol=1e-11, atol=1e-16)
    torch.testing.assert_close(one.losses, two.losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rule": "left"},
        {"tol": 0.1, "steps": 50},
        {"per_image": False},
        {"signed": True},
        {"backend": "reference"},
        {"parameters": "0.*"},
        {"objective": lambda o, gt: (o * gt).flatten(1).sum(1).square()},
    ],
    ids=lambda options: next(iter(options), "defaults"),
)
def test_calls_are_those_of_attribute(options):
    nets, options = pair(kinked), {"steps": 3} | options
    with untouched(*nets):
        attributor = Attributor(*nets, **options)
        for n, size in enumerate(SIZES):
            batch = images(2, size=size, seed=n)
            expected = attribute(*pair(kinked), batch, **options)
            result = attributor(batch)
            close(result, expected)
            assert result.setting == expected.setting and result.notes == expected.notes


def test_networks_are_traced_once_for_all_sizes(monkeypatch):
    made, traced = [], []
    plan, trace = graphs._plan, graphs.trace

    def counted(*args):
        made.append(1)
        return plan(*args)

    def watched(path, module, tensors, x, **options):
        traced.append(tuple(x.shape[2:]))
        return trace(path, module, tensors, x, **options)

    monkeypatch.setattr(graphs, "_plan", counted)
    monkeypatch.setattr(graphs, "trace", watched)
    attributor = Attributor(*pair(kinked), steps=2)
    for size in SIZES:
        attributor(images(1, size=size))
    # Each new size is traced once with the target. A known size is not traced.
    assert len(made) == 1 and traced == SIZES[:3]


def test_what_networks_do_is_looked_at_once_a_call(monkeypatch):
    looked, state = [], graphs.Graphs.state

    def counted(*args):
        looked.append(1)
        return state(*args)

    monkeypatch.setattr(graphs.Graphs, "state", counted)
    nets, batches = pair(kinked), [images(1, size=size) for size in SIZES]
    first, again = (attribute(*nets, batches, steps=2) for _ in range(2))
    assert len(looked) == 2 and same(first, again)


def test_a_known_size_asks_the_networks_nothing():
    nets = pair(kinked)
    attributor, batch = Attributor(*nets, steps=2), images(2)
    first, calls = attributor(batch), []
    handles = [net.register_forward_hook(lambda *_: calls.append(1)) for net in nets]
    again = attributor(batch)
    for handle in handles:
        handle.remove()
    assert same(first, again) and not calls


@pytest.mark.parametrize("seen", [True, False])
def test_weights_that_change_in_place(seen):
    """Torch counts the changes of an optimizer. Changes by `.data` need `refresh`."""
    nets, batch = pair(kinked), images(2)
    attributor = Attributor(*nets, steps=3)
    before = attributor(batch)
    weight = nets[1][0].weight
    with torch.no_grad():
        (weight if seen else weight.data).mul_(1.5)
    if not seen:
        attributor.refresh()
    after = attributor(batch)
    assert not torch.equal(after.scores(), before.scores())
    close(after, attribute(*nets, batch, steps=3))
    assert after.setting.target != before.setting.target


class Scaled(Body):
    factor = 1.0

    def between(self, y):
        return y * self.factor


def test_code_that_changes_is_read_again_by_refresh():
    nets, batch = pair(Scaled), images(2)
    attributor = Attributor(*nets, steps=3)
    attributor(batch)
    for net in nets:
        net.factor = 2.0
    attributor.refresh()
    close(attributor(batch), attribute(*nets, batch, steps=3, backend="reference"))


MOVES = {
    "of another type": (lambda net: net.float(), "float64.*float32"),
    "on another device": (lambda net: net.to("meta"), "on cpu.*on meta"),
    "of another shape": (
        lambda net: setattr(net[0], "weight", nn.Parameter(torch.rand(5, 3, 3, 3).double())),
        r"\[4, 3, 3, 3\].*\[5, 3, 3, 3\]",
    ),
    "with another layer": (lambda net: net.append(nn.Conv2d(3, 3, 1).double()), "not there"),
}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", MOVES)
def test_networks_that_are_not_what_they_were_are_refused(name, which):
    nets, batch = pair(kinked), images(1)
    attributor = Attributor(*nets, steps=2)
    attributor(batch)
    change, words = MOVES[name]
    change(nets[which])
    words = rf"of {('baseline', 'target')[which]} .*{words}.*refresh"
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            attributor(batch)


def test_networks_that_come_back_are_taken_again():
    nets, batch = pair(kinked, torch.float32), images(1, dtype=torch.float32)
    attributor = Attributor(*nets, steps=2)
    first = attributor(batch)
    for net in nets:
        net.double()
    with pytest.raises(ValueError, match="refresh"):
        attributor(batch)
    for net in nets:
        net.float()
    assert torch.equal(attributor(batch).scores(), first.scores())
    for net in nets:
        net.double()
    attributor.refresh()
    assert attributor(tuple(part.double() for part in batch)).precision == "fp64"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, RuntimeError])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_call_that_fails_leaves_it_usable(failure, call, monkeypatch):
    """An operation's `RuntimeError` makes the images that are left run point by point."""
    nets, batch = pair(kinked), images(3)
    options = {"rule": "midpoint", "steps": 5, "backend": "torch"}
    expected = attribute(*pair(kinked), batch, **options)
    attributor, calls = Attributor(*nets, **options), []
    original = integrate.accumulate

    def fails(*args):
        calls.append(1)
        if len(calls) == call:
            raise failure
        return original(*args)

    monkeypatch.setattr(integrate, "accumulate", fails)
    falls_back = failure is RuntimeError
    with untouched(*nets), nullcontext() if falls_back else pytest.raises(failure):
        result = attributor(batch)
    if falls_back:
        close(result, expected)
        assert any("runs point by point" in note for note in result.notes)
    close(attributor(batch), expected)


def test_what_was_not_compared_before_a_failure_is_compared_after(monkeypatch):
    nets, batch = pair(kinked), images(1)
    attributor, original = Attributor(*nets, steps=2), integrate.endpoint_losses_differ

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(integrate, "endpoint_losses_differ", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attributor(batch)
    monkeypatch.setattr(
        integrate, "endpoint_losses_differ", lambda *args: original(*args) or "they differ"
    )
    assert any("runs point by point: they differ" in note for note in attributor(batch).notes)


def test_threads_with_attributors_of_their_own():
    pairs = [pair(kinked, seed=n) for n in range(2)]
    batch = images(3)
    expected = [attribute(*nets, batch, steps=8) for nets in pairs]
    attributors = [Attributor(*nets, steps=8) for nets in pairs]
    by_thread, start = [[], []], threading.Barrier(2)

    def run(n):
        start.wait()
        for _ in range(3):
            by_thread[n].append(attributors[n](batch))

    threads = [threading.Thread(target=run, args=[n]) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(result, expected[n]) for n in range(2) for result in by_thread[n])
    assert [len(results) for results in by_thread] == [3, 3]


def test_a_block_ends_with_everything_dropped():
    nets = list(pair(smooth))
    gone = [weakref.ref(net) for net in nets]
    with Attributor(*nets, steps=2) as attributor:
        attributor(images(1))
    with pytest.raises(ValueError, match="closed"):
        attributor(images(1))
    nets.clear()
    del attributor
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_arguments_are_refused_at_once():
    nets = pair(kinked)
    for kind, words, options in (
        (ValueError, "rule is 'x'", {"rule": "x"}),
        (TypeError, "signed is 1", {"signed": 1}),
        (ValueError, "memory is -1", {"memory": -1}),
        (ValueError, "identical", {}),
    ):
        with untouched(*nets), pytest.raises(kind, match=words):
            Attributor(nets[0], nets[1] if options else nets[0], **options)
    with pytest.raises(TypeError, match="unexpected keyword"):
        Attributor(*nets, batch=1)


def test_a_data_set_and_its_mean():
    nets, data = pair(kinked), [images(n, size=size, seed=n) for n, size in enumerate(SIZES, 1)]
    attributor = Attributor(*nets, steps=3)
    combined, parts = attributor(iter(data)), [attributor(batch) for batch in data]
    close(combined, parts[0].merge(parts[1:]))
    assert combined.images == 10
