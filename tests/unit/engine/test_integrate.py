"""One call of the engine: degradations, sizes, batches, progress, interrupts, errors."""

import gc
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cases.networks import images, kinked, pair, same, smooth, untouched
from torch import nn

from faigfast import attribute
from faigfast.engine import chunking, integrate
from faigfast.engine.accumulator import GradientAccumulator
from faigfast.engine.graph import Graphs
from faigfast.engine.integrate import Engine
from faigfast.engine.parts import rounds_of
from faigfast.filters.index import FilterIndex
from faigfast.integration.objective import squared_error
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step
from faigfast.io import progress

pytestmark = pytest.mark.usefixtures("wide_chunks")


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def degraded(x, gt):
    return {"lq": {"blur": x, "noise": 1 - x, "dark": 0.5 * x}, "gt": gt}


@pytest.mark.parametrize("options", [{"steps": 5}, {"tol": 0.05, "steps": 50}])
def test_several_degradations_are_as_several_calls(options):
    nets, (x, gt) = pair(kinked), images(3)
    batch = degraded(x, gt)
    result = attribute(*nets, batch, **options)
    for d, name in enumerate(batch["lq"]):
        alone = attribute(*nets, (batch["lq"][name], gt), **options)
        close(result.scores(name), alone.scores())
        close(result.losses[d], alone.losses[0])
        close(result.completeness[d], alone.completeness[0])
        assert torch.equal(result.points[d], alone.points[0])
    assert result.backend != "reference" and result.images == 3


def test_degradations_of_other_sizes():
    nets = pair(kinked)
    sizes = {"a": (6, 5), "b": (4, 7), "c": (6, 5)}
    data = {name: images(3, size=size, seed=i) for i, (name, size) in enumerate(sizes.items())}
    lq, gt = ({name: part[k] for name, part in data.items()} for k in (0, 1))
    result = attribute(*nets, {"lq": lq, "gt": gt}, steps=3)
    for name, part in data.items():
        close(result.scores(name), attribute(*nets, part, steps=3).scores())


def test_a_data_set_of_mixed_sizes_is_its_parts():
    nets = pair(kinked)
    sizes = [(2, (6, 5)), (1, (4, 4)), (3, (6, 5)), (1, (9, 3))]
    data = [degraded(*images(n, size=size, seed=i)) for i, (n, size) in enumerate(sizes)]
    result = attribute(*nets, iter(data), steps=3)
    parts = [attribute(*nets, batch, steps=3) for batch in data]
    merged = parts[0].merge(parts[1:])
    for name in merged.degradations:
        close(result.scores(name), merged.scores(name))
    close(result.losses, merged.losses)
    assert result.images == 7


def test_only_the_mean_is_kept():
    nets = pair(kinked)
    data = [degraded(*images(n, seed=n)) for n in (3, 1, 2)]
    kept = attribute(*nets, data, steps=3)
    result = attribute(*nets, data, steps=3, per_image=False)
    for name in kept.degradations:
        close(result.mean(name), kept.mean(name))
        close(result.contrast(name), kept.contrast(name))
        assert torch.equal(result.top(name, 0.3).indices, kept.top(name, 0.3).indices)
        with pytest.raises(ValueError, match="single images were not kept; mean"):
            result.scores(name)
    close(result.completeness, kept.completeness)
    assert result.images == kept.images == 6


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_batches():
    nets, alive = pair(kinked), []

    def data(batches):
        for i in range(batches):
            gc.collect()
            live = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
            alive.append(sum(t.numel() for t in live))
            del live
            yield images(2, seed=i)

    attribute(*nets, data(9), steps=2, per_image=False)
    # After a batch the engine keeps figures of each image, not its scores.
    assert alive[-1] - alive[3] <= 5 * 2 * 12
    alive.clear()
    attribute(*nets, data(9), steps=2)
    assert alive[-1] - alive[3] >= 5 * 2 * 24


def test_progress_counts_points_of_images(capsys):
    nets, (x, gt) = pair(kinked), images(3)
    attribute(*nets, degraded(x, gt), steps=4, progress=True)
    captured = capsys.readouterr()
    assert "36/36" in captured.err and "point·image/s" in captured.err and not captured.out
    attribute(*nets, iter([(x, gt), (x, gt)]), steps=4, progress=True)
    err = capsys.readouterr().err
    assert "24/24" in err and "/12" not in err  # the bar is full only at the end


def test_progress_of_a_list_knows_what_is_left(monkeypatch):
    nets, totals = pair(kinked), []
    bar = progress.tqdm

    class Watched(bar):
        def refresh(self, *args, **options):
            totals.append(self.total)
            return super().refresh(*args, **options)

    monkeypatch.setattr(progress, "tqdm", Watched)
    attribute(*nets, [images(2), images(1), images(3)], steps=5, progress=True)
    # The estimate takes later batches to equal the earlier ones: 3/2 · 15 points, rounded down.
    assert [total for total, _ in groupby(totals) if total] == [30, 22, 30]


@pytest.mark.parametrize("k", [1, 3, 5, 7, 8, 13, 18])
@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError, torch.OutOfMemoryError])
def test_an_interrupt_leaves_nothing_behind(k, error):
    nets, batch = pair(kinked), images(3)
    for net in nets:
        net.train()
        net[0].weight.grad = torch.ones_like(net[0].weight)
    expected = attribute(*nets, batch, steps=4)
    calls = 0

    def interrupts(output, gt):
        nonlocal calls
        calls += 1
        if calls >= k:
            raise error
        return (output - gt).square().flatten(1).sum(1)

    raised = ValueError if error is torch.OutOfMemoryError else error  # which names the budget
    with untouched(*nets, data=batch), pytest.raises(raised):
        attribute(*nets, batch, steps=4, objective=interrupts)
    again = attribute(*nets, batch, steps=4)
    assert same(again, expected)


def test_the_image_whose_gradient_is_not_finite_is_named():
    nets, (x, gt) = pair(lambda: nn.Conv2d(1, 1, 1, bias=False)), images(5, channels=1)
    x[3] = 0

    def root(output, gt):
        return output.abs().sqrt().flatten(1).sum(1)

    with untouched(*nets), pytest.raises(ValueError, match=r"'lq', image 3: the gradient .*finite"):
        attribute(*nets, (x, gt), steps=2, objective=root)


def test_the_image_whose_loss_is_not_finite_on_the_line_is_named():
    nets, (x, gt) = pair(lambda: nn.Conv2d(1, 1, 1, bias=False)), images(5, channels=1)
    with torch.no_grad():
        nets[0].weight.fill_(-1)
        nets[1].weight.fill_(1)
    x = x + 0.5
    gt[:], gt[3] = 0, 1

    def pole(output, gt):  # a pole at the middle of the line, for one image
        return ((output.square() + 1 - gt).reciprocal()).flatten(1).sum(1)

    with pytest.raises(ValueError, match="'lq', image 3: the loss is inf"):
        attribute(*nets, (x, gt), steps=1, objective=pole)


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
)
def test_the_callers_context_does_not_reach_inside(context):
    nets, batch = pair(kinked, torch.float32), images(3, dtype=torch.float32)
    with context():
        fresh = pair(kinked, torch.float32)
        inside = attribute(*fresh, tuple(t.clone() for t in batch), steps=3)
    assert same(inside, attribute(*nets, batch, steps=3))
    assert not [note for note in inside.notes if "point by point" in note]


def test_networks_without_values_are_refused():
    with torch.device("meta"):
        nets = smooth(), smooth()
    with pytest.raises(ValueError, match="on meta"):
        attribute(*nets, images(1, dtype=torch.float32))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
def test_precisions_agree_with_the_reference(precision):
    nets, batch = pair(smooth, torch.float32), images(3, dtype=torch.float32)
    expected = attribute(*nets, batch, precision=precision, backend="reference", steps=4)
    result = attribute(*nets, batch, precision=precision, backend="torch", steps=4)
    bound = {"fp64": 1e-12, "fp32": 1e-5, "bf16": 0.1, "fp16": 0.02}[precision]
    distance = (result.scores() - expected.scores()).norm() / expected.scores().norm()
    assert distance < bound and result.scores().dtype == expected.scores().dtype
    assert not [note for note in result.notes if "point by point" in note]


def test_an_image_does_not_depend_on_what_else_is_in_the_batch():
    nets, (x, gt) = pair(kinked), images(5)
    result = attribute(*nets, (x, gt), steps=5)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        alone = attribute(*nets, (x[part], gt[part]), steps=5)
        close(alone.scores(), result.scores()[part])


def test_what_gets_no_gradient_in_a_later_step_is_weighed_as_the_rest():
    """A refinement scales down all earlier sums, also of tensors without a new gradient."""
    nets = pair(smooth)
    path = WeightPath(*nets)
    index = FilterIndex.of(nets[1])
    accumulator = GradientAccumulator(path, index, frozenset(path.delta), [(1.0, 2.0)])
    nodes, ones = np.array([0.5]), {key: torch.ones(1, *d.shape) for key, d in path.delta.items()}
    accumulator.add(Step(nodes, nodes), [{key: value.clone() for key, value in ones.items()}])
    rest = {key: value for key, value in ones.items() if key.startswith("0.")}
    accumulator.add(Step(nodes, nodes, keep=0.5), [rest])
    wanted = {key: 1.5 if key in rest else 0.5 for key in ones}
    assert {key: float(value.mean()) for key, value in accumulator.total.items()} == wanted


@pytest.mark.parametrize(
    "size, images, nodes, expected",
    [
        # ([points of each chunk], images of a chunk)
        ((48, 48), 4, 8, ([4, 4], 4)),
        ((64, 64), 6, 9, ([3, 3, 3], 4)),
        ((48, 48), 1, 8, ([8], 1)),
        ((128, 128), 3, 8, ([4, 4], 1)),
        ((300, 300), 2, 3, ([2, 1], 1)),
        ((600, 600), 2, 3, ([1, 1, 1], 1)),
    ],
)
def test_chunks_of_the_kernels_in_cpp(size, images, nodes, expected, monkeypatch):
    nets = pair(kinked)
    path = WeightPath(*nets)
    engine = Engine(path, path, nets, squared_error, Graphs(), backend="cpu")
    x = torch.zeros(1, 3, *size)
    monkeypatch.setattr(integrate, "fit_chunk", lambda plan, leaves, x, wanted, budget: wanted)
    monkeypatch.setattr(
        chunking, "BYTES_PER_THREAD", {"cpu": (1 << 16) * 64 / torch.get_num_threads()}
    )
    bytes_per_pixel = 1, 64, 64, 256
    plan = SimpleNamespace(
        bytes_of_sample=0, sample=bytes_per_pixel, size=lambda layer: layer * x.shape[2:].numel(),
        side_by_side=False, averages=True, kinked=True, runs_alone=lambda backend: not backend,
    )  # fmt: skip
    step = Step(np.linspace(0, 1, nodes), np.ones(nodes))
    chunk = engine._chunk(plan, x, images, [step])
    (parts,) = rounds_of(step, chunk, engine._one_sample(plan, chunk), 1)
    assert ([len(part.nodes) for part in parts], chunk.images) == expected
    assert [a for part in parts for a in part.nodes] == step.nodes.tolist()
