"""Chunks fit their budget, which does not change results; too large images are cut or refused."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cases.networks import kinked, pair, untouched
from torch.profiler import ProfilerActivity, profile

from faigfast import attribute
from faigfast.attribution import attributor as attribution
from faigfast.backend.cpu import extension as _extension
from faigfast.engine import chunking, integrate, machine_memory, memory
from faigfast.engine import run as execute
from faigfast.engine.graph import Graphs
from faigfast.engine.memory import Chunk, default_budget
from faigfast.engine.run import path_tensors
from faigfast.integration.path import WeightPath
from faigfast.io import progress
from faigfast.ops.registry import in_use
from faigfast.zoo import EDSR, RCAN, RRDBNet, SRResNet, SwinIR

WIDE = Chunk(4, 4)


@pytest.fixture(autouse=True)
def wide_chunks(monkeypatch):
    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), WIDE))
    monkeypatch.setattr(chunking, "BYTES_PER_THREAD", {})


NETS = {
    "SRResNet": (lambda: SRResNet(width=16, blocks=2, scale=2), (36, 40), 2),
    "RRDBNet": (lambda: RRDBNet(width=8, growth=8, blocks=1, scale=4), (16, 16), 4),
    "SwinIR": (
        lambda: SwinIR(width=12, depths=(2,), heads=(2,), window=4, image_size=16, scale=2),
        (16, 16),
        2,
    ),
    "EDSR": (lambda: EDSR(width=16, blocks=2, scale=3), (24, 32), 3),
}


def data(size, scale, images=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((images, 3, *size), generator=generator)
    gt = torch.rand((images, 3, *(scale * side for side in size)), generator=generator)
    return x, gt


def least(nets, batch, rule="midpoint"):
    """Bytes for one point of one image, from the error message."""
    with untouched(*nets), pytest.raises(ValueError, match="memory is 1 bytes; one image") as error:
        attribute(*nets, batch, rule=rule, steps=2, memory=1)
    return int(re.search(r"needs (\d+)", str(error.value))[1])


def peak(function):
    """Largest growth of torch's allocations in bytes.

    It leaves out the C++ kernels, which allocate memory themselves.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    now = most = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


# In float64 torch's convolutions allocate columns of the image, which no tensor shows.
@pytest.mark.parametrize(
    "name, dtype, rule",
    [
        ("SRResNet", torch.float32, "midpoint"),
        ("SRResNet", torch.float32, "averaged"),
        ("SRResNet", torch.float64, "midpoint"),
        ("SwinIR", torch.float32, "midpoint"),
        ("EDSR", torch.float32, "midpoint"),
        pytest.param("RRDBNet", torch.float32, "midpoint", marks=pytest.mark.slow),
    ],
)
def test_the_peak_stays_within_the_budget_and_results_do_not_change(name, dtype, rule, monkeypatch):
    make, size, scale = NETS[name]
    nets, batch = pair(make, dtype), tuple(part.to(dtype) for part in data(size, scale))
    expected = attribute(*nets, batch, rule=rule, steps=3, memory=10**12)
    smallest = least(nets, batch, rule=rule)
    used = []
    original = integrate.accumulate

    def watched(plan, prepared, points, weights, gt, objective, segments=1):
        used.append((len(points.nodes), points.images, segments))
        return original(plan, prepared, points, weights, gt, objective, segments)

    monkeypatch.setattr(integrate, "accumulate", watched)
    start = integrate.Engine._images

    peaks = []

    def measured(*args):
        if peaks:  # measuring the first images is enough
            return start(*args)
        results = []
        peaks.append(peak(lambda: results.append(start(*args))))
        return results[0]

    monkeypatch.setattr(integrate.Engine, "_images", measured)
    shapes = set()
    for factor in (1, 1.7, 5, 40) if name == "SRResNet" else (1, 5, 40):
        budget = int(factor * smallest)
        used.clear()
        peaks.clear()
        result = attribute(*nets, batch, rule=rule, steps=3, memory=budget)
        assert peaks[0] <= 1.1 * budget, (factor, used[0])
        shapes.add(used[0])
        error = (result.scores() - expected.scores()).norm() / expected.scores().norm()
        assert error < 1e-4
    # The budgets give different chunks, and the smallest cuts the network where that helps.
    assert len(shapes) >= (2 if rule == "averaged" else 3)
    assert rule == "averaged" or name == "EDSR" or max(shape[2] for shape in shapes) > 1
    assert max(shape[0] * shape[1] for shape in shapes) > 1


@pytest.mark.slow
@pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no peak of memory"
)
def test_the_process_grows_by_no_more_than_the_budget_with_the_kernels_in_cpp():
    """The kernels allocate their tensors themselves, so only the process shows them."""
    script = Path(__file__).parents[2] / "cases" / "memory_process.py"
    result = subprocess.run(
        [sys.executable, str(script), "SRResNet", "RRDBNet"], capture_output=True, text=True,
        # The C library returns freed memory at once.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    cases = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(cases) == 2
    # Measured: 0.98 and 0.93. If a fifth were missing from the count: 1.23 and 1.16.
    assert all(0.75 <= case["peak"] / case["budget"] <= 1.1 for case in cases), cases


@pytest.mark.parametrize("name", ["SRResNet", pytest.param("SwinIR", marks=pytest.mark.slow)])
def test_what_a_refusal_says_is_enough(name):
    make, size, scale = NETS[name]
    nets, batch = pair(make, torch.float32), data(size, scale, 2)
    needed = least(nets, batch, rule="averaged")
    result = attribute(*nets, batch, steps=2, memory=needed)
    assert result.scores().isfinite().all()
    with pytest.raises(ValueError, match=f"memory is {needed - 1} bytes; .*needs {needed} "):
        attribute(*nets, batch, steps=2, memory=needed - 1)


def check_bound(name, sides, chunks):
    make, size, _ = NETS[name]
    path = WeightPath(*pair(make, torch.float32))
    for side in sides:
        x = torch.rand(1, 3, side, size[0])
        plan = Graphs().plan_of(path, x)
        for chunk in chunks:
            most = memory.upper_bound(plan, path_tensors(path), chunk)
            alone = dataclasses.replace(chunk, at_once=1)
            counted = chunk.at_once * memory.footprint(plan, path_tensors(path), x, alone)
            assert counted <= most, (side, chunk, counted / most)


SEVERAL, AT_ONCE = Chunk(4, 2), Chunk(2, 1, at_once=2)
CHUNKS = (Chunk(1, 1), SEVERAL, AT_ONCE)


@pytest.mark.parametrize("name", NETS)
def test_a_bound_is_not_below_what_is_counted(name):
    check_bound(name, [8], [SEVERAL])
    check_bound(name, NETS[name][1][:1], [AT_ONCE] if name in ("RRDBNet", "SwinIR") else CHUNKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_bound_is_not_below_what_is_counted_for_any_size_and_chunk(name):
    check_bound(name, {8, *NETS[name][1]}, CHUNKS)


def test_one_count_serves_larger_images_and_other_calls(monkeypatch):
    make, (height, width), scale = NETS["SRResNet"]
    nets, counted = pair(make, torch.float32), []
    original = memory.footprint

    def footprint(plan, leaves, x, chunk):
        counted.append(x.shape[2:])
        return original(plan, leaves, x, chunk)

    monkeypatch.setattr(memory, "footprint", footprint)
    monkeypatch.setattr(memory, "upper_bound", lambda *_: math.inf)
    for size in ((height, width), (height, 2 * width), (2 * height, width), (height, width)):
        attribute(*nets, data(size, scale, images=1), steps=2, memory=10**12)
    assert counted == [(height, width)]


def test_the_default_is_a_share_of_the_machine(monkeypatch):
    budget = default_budget(torch.device("cpu"))
    assert budget == default_budget(torch.device("cpu")) > 2**26
    seen = []
    original = integrate.fit_chunk

    def fitted(*args):
        seen.append(args[-1])
        return original(*args)

    monkeypatch.setattr(integrate, "fit_chunk", fitted)
    attribute(*pair(kinked), tuple(t.double() for t in data((6, 5), 1)), steps=2)
    assert seen == [budget]


@pytest.mark.parametrize("failures", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("late", [0, 1])
def test_out_of_memory_halves_the_chunk_and_counts_nothing_twice(failures, late, monkeypatch):
    nets, batch = pair(kinked), tuple(t.double() for t in data((6, 5), 1))
    expected = attribute(*nets, batch, rule="midpoint", steps=8)
    original, calls, moved = integrate.accumulate, [], []

    def fails(plan, prepared, points, *args):
        chunk = len(points.nodes), points.images, args[-1]
        calls.append(chunk)
        accumulated = original(plan, prepared, points, *args)
        if len(set(calls)) <= failures and calls.count(chunk) > late:
            raise torch.OutOfMemoryError("no memory left")
        return accumulated

    monkeypatch.setattr(integrate, "accumulate", fails)

    class Bar(progress.tqdm):
        def update(self, n=1):
            moved.append(n)
            return super().update(n)

    monkeypatch.setattr(progress, "tqdm", Bar)
    with untouched(*nets):
        result = attribute(*nets, batch, rule="midpoint", steps=8)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(result.completeness, expected.completeness, rtol=1e-8, atol=1e-12)
    assert torch.equal(result.points, expected.points) and sum(moved) == 8 * 4
    notes = [note for note in result.notes if note.startswith("memory: ran out with")]
    assert len(notes) == failures
    order = [Chunk(4, 4), Chunk(2, 4), Chunk(1, 4), Chunk(1, 2), Chunk(1, 1), Chunk(1, 1, 2)]
    assert all(
        f"ran out with {chunk} at once; " in note for chunk, note in zip(order, notes, strict=False)
    )
    assert list(dict.fromkeys(calls))[: failures + 1] == [
        (c.points, c.images, c.segments) for c in [*order, Chunk(1, 1, 4)][: failures + 1]
    ]


def test_out_of_memory_with_the_smallest_chunk_is_an_error(monkeypatch):
    nets, batch = pair(kinked), tuple(t.double() for t in data((6, 5), 1))
    attribute(*nets, batch, steps=2)

    def fails(*args):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(integrate, "accumulate", fails)
    with untouched(*nets), pytest.raises(ValueError, match=r"memory ran out at .*image 0"):
        attribute(*nets, batch, steps=2)


def test_smaller_chunks_end():
    chunk, seen = Chunk(8, 8), []
    while chunk is not None:
        seen.append(chunk)
        chunk = chunk.smaller()
    assert seen[3:7] == [Chunk(1, 8), Chunk(1, 4), Chunk(1, 2), Chunk(1, 1)]
    assert seen[-1] == Chunk(1, 1, memory.MOST_SEGMENTS) and len(seen) == len(set(seen))


def test_the_default_budget_is_less_where_little_is_free(monkeypatch):
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: (1000, 900))
    assert default_budget(torch.device("cpu")) == 250
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: (1000, 200))
    assert default_budget(torch.device("cpu")) == 160
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 350)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 250)
    assert default_budget(torch.device("cuda", 0)) == 160


def test_sizes_of_one_call_do_not_pile_up():
    nets, made = pair(kinked), []
    start = integrate.Engine.__post_init__

    def watched(engine):
        made.append(engine)
        start(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrate.Engine, "__post_init__", watched)
        patch.setattr(integrate, "SIZES", 3)
        sizes = [(torch.rand(1, 3, 5, n).double(),) * 2 for n in range(4, 12)]
        result = attribute(*nets, sizes, steps=1)
    assert result.images == len(sizes) and len(made[0].checked_plans) == 3


def test_a_budget_that_is_not_counted_is_told():
    class ByValue(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            return y if y.sum() > 0 else -y

    nets = pair(ByValue, torch.float32)
    result = attribute(*nets, data((6, 6), 1, images=1), steps=1, memory=1)
    assert any(note.startswith("memory: the budget has no effect") for note in result.notes)


def test_what_is_needed_is_counted_for_each_backend():
    nets = pair(lambda: kinked(width=16), torch.float32)
    batch = data((16, 16), 1, images=1)
    needs = {}
    for order in (("torch", "cpu"), ("cpu", "torch")):
        attribution._graphs.pop(nets[1], None)
        for backend in order:
            with pytest.raises(ValueError, match="needs") as error:
                attribute(*nets, batch, steps=1, memory=1, backend=backend)
            needs.setdefault(backend, set()).add(str(error.value))
    assert [len(messages) for messages in needs.values()] == [1, 1]


def test_segments_are_run_again_by_the_same_kernels_in_whatever_thread(monkeypatch):
    """For a GPU, autograd runs in a thread of its own, without the call's context."""
    nets = pair(lambda: RCAN(width=8, groups=1, blocks=2, squeeze=2, scale=2), torch.float32)
    batch = data((12, 12), 2, images=1)
    monkeypatch.setattr(
        chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), Chunk(4, 1, segments=3))
    )
    expected = attribute(*nets, batch, steps=2, backend="cpu").scores()
    backward, run, used = torch.Tensor.backward, execute.run_nodes, []

    def in_a_thread(tensor):
        thread = threading.Thread(target=backward, args=[tensor])
        thread.start()
        thread.join()

    def watched(*given):
        used.append((threading.current_thread() is threading.main_thread(), in_use().backend))
        run(*given)

    monkeypatch.setattr(torch.Tensor, "backward", in_a_thread)
    monkeypatch.setattr(execute, "run_nodes", watched)
    scores = attribute(*nets, batch, steps=2, backend="cpu").scores()
    assert {backend for in_main, backend in used if not in_main} == {"cpu"}
    assert (True, "cpu") in used  # torch's own kernels compare the plan
    torch.testing.assert_close(scores, expected)
