"""Chunks in parallel: the same results in every run, and no side effects."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases.networks import images, pair
from torch import nn

import faigfast
from faigfast.engine import chunking, integrate, one_sample
from faigfast.engine.threads import run_concurrently, worker_blocks
from faigfast.integration.objective import is_ours, squared_error


@pytest.fixture
def threads(monkeypatch):
    """Let small networks use threads as large ones do."""
    monkeypatch.setattr(chunking, "LARGE_SAMPLE", 0)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 3, 3, padding=1),
    )  # fmt: skip


@pytest.mark.parametrize("count", range(1, 14))
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_every_item_runs_once_and_in_order(count, workers, threads):
    threads(4)
    taken = []

    def run(number, item):
        time.sleep(0.001 * (item % 3))
        taken.append((number, item, torch.get_num_threads()))
        return item

    assert list(run_concurrently(run, range(count), workers)) == list(range(count))
    assert sorted(item for _, item, _ in taken) == list(range(count))
    for number in range(workers):
        mine = [item for k, item, _ in taken if k == number]
        assert mine == sorted(mine)
    for parts, at_once in worker_blocks(count, workers):
        assert parts % at_once == 0
    assert torch.get_num_threads() == 4
    shares = {share for *_, share in taken}
    assert shares <= {4 // at_once for _, at_once in worker_blocks(count, workers)}


def test_an_interruption_while_items_are_given_out_leaves_none_running(threads, monkeypatch):
    threads(2)
    taken, given = [], []
    submit = ThreadPoolExecutor.submit

    def interrupted(self, *task):
        given.append(task)
        if len(given) == 5:
            raise KeyboardInterrupt
        return submit(self, *task)

    def run(number, item):
        time.sleep(0.02)
        taken.append(item)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run_concurrently(run, range(12), 2))
    before = len(taken)
    time.sleep(0.1)
    assert before == len(taken) < 5 and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "midpoint", "steps": 7},
        {"rule": "midpoint", "tol": 0.05},
        {"rule": "gauss-kronrod"},
        {"rule": "averaged", "steps": 9},
    ],
)
def test_the_same_numbers_with_any_number_of_threads(threads, options):
    nets, data = pair(net), images(2, size=(9, 11))
    results = []
    for count in (1, 2, 4, 4):
        threads(count)
        results.append(faigfast.attribute(*nets, data, backend="torch", **options))
    for other in results[1:]:
        torch.testing.assert_close(other.scores(), results[0].scores(), rtol=1e-4, atol=1e-7)
        assert torch.equal(other.points, results[0].points)
    assert torch.equal(results[2].scores(), results[3].scores()), "from run to run to the bit"
    reference = faigfast.attribute(*nets, data, backend="reference", **options)
    torch.testing.assert_close(results[2].scores(), reference.scores(), rtol=1e-3, atol=1e-6)


def test_points_really_run_at_the_same_time(threads, monkeypatch):
    threads(2)
    both, original = threading.Barrier(2, timeout=30), integrate.accumulate

    def meet(*args):
        both.wait()
        return original(*args)

    monkeypatch.setattr(integrate, "accumulate", meet)
    data = images(1, size=(9, 9))
    result = faigfast.attribute(*pair(net), data, rule="midpoint", steps=4, backend="torch")
    assert not any("point by point" in note for note in result.notes)


def test_own_objectives_and_small_budgets_run_alone(threads, monkeypatch):
    threads(2)
    seen, original = set(), integrate.accumulate

    def watch(*args):
        seen.add(threading.current_thread())
        return original(*args)

    monkeypatch.setattr(integrate, "accumulate", watch)
    nets, data = pair(net), images(1, size=(40, 40))

    def own(output, gt):
        return (output - gt).abs().flatten(1).sum(1)

    options = {"rule": "midpoint", "steps": 4, "backend": "torch"}
    faigfast.attribute(*nets, data, objective=own, **options)
    faigfast.attribute(*nets, data, memory=3_000_000, **options)
    assert seen == {threading.main_thread()}
    assert is_ours(squared_error) and not is_ours(own)


def test_an_error_of_one_thread_is_told_and_all_is_as_before(threads, monkeypatch):
    threads(2)
    original = integrate.accumulate

    def fails(plan, prepared, points, *rest):
        if points.nodes[0] > 0.5:
            raise ValueError("the loss is nan")
        return original(plan, prepared, points, *rest)

    nets, data = pair(net), images(1, size=(9, 9))
    with monkeypatch.context() as patch:
        patch.setattr(integrate, "accumulate", fails)
        with pytest.raises(ValueError, match="image 0: the loss is nan"):
            faigfast.attribute(*nets, data, rule="midpoint", steps=6, backend="torch")
    assert torch.get_num_threads() == 2
    result = faigfast.attribute(*nets, data, steps=6, backend="torch")
    assert result.scores().isfinite().all()


def test_an_interrupt_waits_for_no_more_than_what_runs(threads):
    threads(2)
    taken = []

    def run(_, item):
        taken.append(item)
        time.sleep(0.05)
        return item

    with pytest.raises(KeyboardInterrupt):
        for item in run_concurrently(run, range(40), 2):
            if item == 1:
                raise KeyboardInterrupt
    settled = len(taken)
    time.sleep(0.2)
    assert len(taken) == settled < 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(threads):
    threads(2)
    assert list(run_concurrently(lambda _, n: n, range(4), 2)) == [0, 1, 2, 3]
    child = os.fork()
    if not child:  # pragma: no cover
        results = list(run_concurrently(lambda _, n: n, range(4), 2))
        os._exit(0 if results == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_large_convolutions_take_their_bias_gradients_apart(kind, monkeypatch):
    """Small convolutions count as large ones here."""
    made = []
    original = one_sample.convolution

    def convolution(*args):
        made.append(args)
        return original(*args)

    monkeypatch.setattr(one_sample, "convolution", convolution)
    monkeypatch.setattr(one_sample, "LARGE_OUTPUT", 0)
    spatial = {nn.Conv1d: (9,), nn.Conv2d: (6, 5), nn.Conv3d: (3, 4, 5)}[kind]
    nets = pair(
        lambda: nn.Sequential(
            kind(3, 6, 3, padding=1), nn.ReLU(), kind(6, 6, 3, 1, 2, 2, 3), nn.Sigmoid(),
            kind(6, 3, 1, bias=False),
        )
    )  # fmt: skip
    data = images(2, size=spatial)
    one, other = (
        faigfast.attribute(*nets, data, steps=3, backend=b) for b in ("torch", "reference")
    )
    assert made
    torch.testing.assert_close(one.scores(), other.scores(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.completeness, other.completeness, rtol=1e-6, atol=1e-12)
