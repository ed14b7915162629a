"""Measured choices of a layer's kernel and of the chunk size, with a CPU as the device."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from cases.networks import images, pair
from cases.path_operations import arguments, assert_equal, conv_case, operation_values

from faigfast import attribute
from faigfast.backend.cpu import extension as _extension
from faigfast.backend.gpu import resident_chunks
from faigfast.backend.gpu.layer_choice import LAYER_TIMINGS, LayerChoice, layer_key, layer_name
from faigfast.backend.gpu.timed_choices import TimedChoices
from faigfast.engine import chunking, integrate
from faigfast.engine.memory import Chunk
from faigfast.ops.registry import KERNELS, Use, choose, kernel, using
from faigfast.zoo import SRResNet

CPU = torch.device("cpu")


@pytest.fixture
def timings(tmp_path, monkeypatch):
    """TimedChoices on a CPU, with times from the iterator `speeds`."""
    monkeypatch.setenv("FAIGFAST_CACHE", str(tmp_path))
    monkeypatch.delenv("FAIGFAST_TUNE", raising=False)
    speeds = iter(())

    def timer(run, device):
        run()
        return next(made.speeds)

    made = TimedChoices("layers.json", 1e6, 1e6, 1.05, ("cpu",), timer, name=lambda _: "stand-in")
    made.speeds = speeds
    return made


@pytest.fixture
def kernels(monkeypatch):
    """Registers kernels of backends "one" and "two", which record their runs."""
    ran = []

    def add(backend, operation, change=lambda out: out, refuses=lambda *_: ""):
        run = KERNELS[operation][-1].run

        def noted(*args):
            ran.append((operation, backend))
            return change(run(*args))

        kernel(f"kernel {backend}", operation, refuses, backend)(noted)

    for operation in ("conv", "conv_backward"):
        monkeypatch.setitem(KERNELS, operation, list(KERNELS[operation]))
    add.ran = ran
    return add


def use_of(timings, rivals=("one", "two", ""), **options):
    return Use("one", layer_choice=LayerChoice(rivals, timings), **options)


def test_the_fastest_backend_serves_each_operation(timings, kernels):
    for backend in ("one", "two"):
        for operation in ("conv", "conv_backward"):
            kernels(backend, operation)
    case = conv_case(activation="relu").to(torch.float32)
    plain = operation_values(case)
    # Times of the own kernel, PyTorch and the other kernel, forward and then backward.
    timings.speeds = iter([3.0, 2.0, 1.0, 3.0, 1.0, 2.0])
    use = use_of(timings)
    with using(use):
        assert_equal(operation_values(case), plain)
        kernels.ran.clear()
        assert_equal(operation_values(case), plain)
    assert kernels.ran == [("conv", "two")]  # PyTorch serves the backward
    layer = "3→5 3×3"
    assert use.layer_choice.notes() == [
        f"layers: conv by kernel two, as measured: {layer}",
        f"layers: conv_backward by PyTorch (cuDNN, channels-last), as measured: {layer}",
    ]
    assert not use.refused
    with using(use_of(timings)):  # the stored choice needs no timing
        assert_equal(operation_values(case), plain)
    assert len(timings.described()) == 2


def test_the_backend_that_was_asked_for_stays_in_a_tie(timings, kernels):
    for backend in ("one", "two"):
        kernels(backend, "conv")
    timings.speeds = iter([1.0, 1.0, 0.97])
    given = arguments(conv_case().to(torch.float32))[0][1]
    with using(use_of(timings)):
        assert choose("conv", *given).name == "kernel one"


def test_a_kernel_that_is_wrong_or_fails_is_left_out_and_told_of(timings, kernels):
    def broken(out):
        raise RuntimeError("no image of this device")

    kernels("one", "conv", lambda out: (1.001 * out[0], out[1]))
    kernels("two", "conv", broken)
    timings.speeds = iter([2.0])
    given = arguments(conv_case().to(torch.float32))[0][1]
    use = use_of(timings)
    with using(use):
        assert choose("conv", *given).name == "plain"
    notes = use.layer_choice.notes()
    assert "without the kernel one kernel: its result differs, 10.0 times" in notes[1]
    assert notes[2].endswith("without the kernel two kernel: no image of this device")


@pytest.mark.parametrize("change", [
    lambda y: torch.full_like(y, torch.nan), lambda y: y.double(), lambda y: y[:1],
    lambda y: torch.zeros_like(y),
])  # fmt: skip
def test_results_of_every_kind_of_wrong_are_refused(timings, kernels, change):
    kernels("one", "conv", lambda out: (change(out[0]), out[1]))
    timings.speeds = iter([2.0])
    given = arguments(conv_case().to(torch.float32))[0][1]
    with using(use_of(timings)):
        assert choose("conv", *given).name == "plain"


def test_only_what_has_the_same_precision_takes_part(timings, kernels):
    kernels("one", "conv")
    kernels("two", "conv", refuses=lambda *_: "it is Tuesday")
    given = arguments(conv_case().to(torch.float32))[0][1]
    use = use_of(timings, mode="tf32")
    with using(use):
        assert choose("conv", *given).name == "kernel one"
    assert use.layer_choice.notes() == [] and timings.described() == {}
    timings.speeds = iter([2.0, 1.0])
    with using(use_of(timings)):
        assert choose("conv", *given).name == "plain"
    assert "kernel two" not in next(iter(timings.described().values()))


def test_layers_are_told_apart_by_what_matters():
    def key(**options):
        case = conv_case(**options).to(torch.float32)
        (operation, given), _ = arguments(case)
        return layer_key(operation, given), layer_name(operation, given)

    base = dict(channels=(3, 5), size=(5, 7), points=2)
    assert key(**base)[0].startswith("conv 3→5 3×3 types=float32-float32 mode=ieee points=2 ")
    assert key(**base) == key(**base | dict(size=(6, 8)))  # both sizes are of one class
    for other in (dict(size=(50, 70)), dict(points=5), dict(channels=(3, 6)), dict(stride=2),
                  dict(dilation=2), dict(activation="relu"), dict(residual="points")):  # fmt: skip
        assert key(**base)[0] != key(**base | other)[0], other
    _, back = arguments(conv_case(**base).to(torch.float32))
    assert layer_key(*back).startswith("conv_backward 3→5 3×3 ") and "needs=xwb" in layer_key(*back)
    x, w = torch.zeros(1, 1, 4, 3, 3), torch.zeros(4, 2, 3, 3)
    args = [x, w, *[None] * 10, [2, 2], [1, 1], [1, 1], True, [0, 0], 3]
    assert layer_name("conv", args) == "4→6 3×3 stride 2×2 transposed 3 groups"


@pytest.mark.skipif(_extension.module is None, reason="the extension is missing")
def test_a_whole_attribution_takes_the_fastest_and_says_so(timings, monkeypatch):
    monkeypatch.setattr(integrate, "RIVAL_BACKENDS", ("cpu",))
    monkeypatch.setattr(integrate, "LAYER_TIMINGS", timings)
    monkeypatch.setattr(integrate, "LayerChoice", partial(LayerChoice, ("cpu", ""), timings))
    # The C++ kernel is timed first: slower forward, faster backward.
    order = iter(range(10**6))
    timings.timer = lambda run, device: run() or [2.0, 1.0][next(order) % 2]
    nets = pair(partial(SRResNet, width=8, blocks=1, scale=2), torch.float32)
    x, _ = images(2, size=(9, 8), dtype=torch.float32)
    gt = torch.rand(2, 3, 18, 16)
    exact = attribute(*nets, (x, gt), steps=3, backend="torch", precision="fp64")
    result = attribute(*nets, (x, gt), steps=3, backend="cpu")
    told = [note for note in result.notes if note.startswith("layers: ")]
    assert told and all("PyTorch" in note and "8→8 3×3" in note for note in told), result.notes
    torch.testing.assert_close(result.scores().double(), exact.scores().double(), rtol=1e-4, atol=0)
    assert torch.equal(attribute(*nets, (x, gt), steps=3, backend="cpu").scores(), result.scores())


def test_nothing_is_chosen_on_a_cpu():
    assert LAYER_TIMINGS.types == resident_chunks.CHUNK_TIMINGS.types == ("cuda",)


def test_chunks_that_stay_in_the_cache():
    nets = pair(partial(SRResNet, width=8, blocks=1, scale=2), torch.float32)
    plan, x, _ = planned(nets)
    wanted = Chunk(points=8, images=8)
    with using(Use()):
        sizes = {}
        for mib in (0, 1, 4, 10**6):
            small = resident_chunks.chunk_for_cache(plan, x, wanted, mib * 2**20)
            sizes[mib] = None if small is None else small.samples
    assert sizes[0] is None and sizes[10**6] is None
    assert 1 <= sizes[1] < sizes[4] < 64
    with using(Use(values=torch.float16)):  # half as many bytes
        assert resident_chunks.chunk_for_cache(plan, x, wanted, 2**19).samples == sizes[1]
    assert resident_chunks.chunk_for_cache(plan, x, replace(wanted, segments=2), 2**20) is None


def planned(nets):
    from faigfast.engine.graph import Graphs
    from faigfast.integration.path import WeightPath

    path = WeightPath(*nets)
    x = torch.rand(1, 3, 32, 32)
    return Graphs().plan_of(path, x), x, path


@pytest.mark.parametrize("faster", [True, False])
def test_the_chunk_is_the_faster_one(timings, monkeypatch, faster):
    """`speeds` has the seconds of a chunk by its samples; the smaller chunk does less work."""
    speeds = {64: 64.0, 4: 3.0 if faster else 5.0}
    seen = []

    def timer(run, device):
        run()
        seen.append(len(seen))
        return [speeds[64], speeds[4]][len(seen) - 1]

    timings.timer = timer
    monkeypatch.setattr(resident_chunks, "CHUNK_TIMINGS", timings)
    monkeypatch.setattr(resident_chunks, "chunk_for_cache", lambda *_: Chunk(2, 2))
    nets = pair(partial(SRResNet, width=4, blocks=1, scale=2), torch.float32)
    plan, x, path = planned(nets)
    given, notes = integrate.path_tensors(path), {}
    with using(Use()):
        chunk = resident_chunks.faster_chunk(
            plan, given, x, torch.rand(1, 3, 64, 64), lambda y, gt: (y - gt).square().flatten(1)
            .sum(1), Chunk(8, 8), notes, lambda _: 50 << 20,
        )  # fmt: skip
    assert chunk == (Chunk(2, 2) if faster else Chunk(8, 8)) and len(seen) == 2
    assert bool(notes) == faster
    if faster:
        assert next(iter(notes)).startswith(
            "memory: 2 points of 2 images at once, whose values stay in 50 MiB of cache: as many "
            "as stay in the cache (as many as stay in the cache 750 ms; as many as fit"
        )


def test_an_attribution_with_a_smaller_chunk_has_the_same_scores(timings, monkeypatch):
    times = iter([8.0, 1.0] * 9)
    timings.timer = lambda run, device: run() or next(times)
    for module in (resident_chunks, integrate):
        monkeypatch.setattr(module, "CHUNK_TIMINGS", timings)
    monkeypatch.setattr(
        integrate, "faster_chunk", partial(resident_chunks.faster_chunk, cache=lambda _: 4000)
    )
    monkeypatch.setitem(chunking.PREFERRED_CHUNKS, "cpu", Chunk(points=4, images=2))
    nets, batch = pair(dtype=torch.float32), images(3, dtype=torch.float32)
    small = attribute(*nets, batch, steps=7, backend="torch")
    assert any("of cache: " in note for note in small.notes), small.notes
    monkeypatch.setenv("FAIGFAST_TUNE", "0")
    large = attribute(*nets, batch, steps=7, backend="torch")
    (key,) = timings.described()
    assert "pixels=32 samples=8 torch float32 ieee" in key  # sizes of one class share a choice
    assert not any("of cache" in note for note in large.notes)
    torch.testing.assert_close(small.scores(), large.scores(), rtol=1e-5, atol=1e-9)
