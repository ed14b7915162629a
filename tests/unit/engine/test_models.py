"""Many points in one pass give the literal loop's results for any network."""

import copy

import pytest
import torch
from cases.hard_networks import Outputs, outputs_loss
from cases.network_table import LOOPED, NETWORKS, SLOW, SPATIAL, near
from cases.networks import kinked, pair, untouched
from torch import nn

from faigfast import attribute
from faigfast.backend.catalogue import backends
from faigfast.engine import chunking, integrate, memory
from faigfast.engine.memory import Chunk
from faigfast.models.state import copy_of
from faigfast.zoo import (
    EDSR,
    RCAN,
    DnCNN,
    DRUNet,
    FFDNet,
    RRDBNet,
    SRCNNStyle,
    SRResNet,
    SRVGGNetCompact,
    SwinIR,
)

# (points, images, segments) of a chunk for 3 images and 4 points, with and without remainder.
TOGETHER = Chunk(2, 4)
CHUNKS = (Chunk(3, 2), Chunk(1, 1), TOGETHER, Chunk(2, 2, segments=3))

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*weight_norm.*is deprecated", "ignore:Using padding='same' with even kernel"
)


def in_chunks(monkeypatch, chunk, counted=True):
    """Choose the chunk; without `counted`, do not count its memory, which takes longest."""
    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), chunk))
    monkeypatch.setattr(chunking, "BYTES_PER_THREAD", {})
    if not counted:
        monkeypatch.setattr(
            integrate, "fit_chunk", lambda plan, tensors, x, preferred, _: preferred
        )


def batch_for(net, size, dtype=torch.float64, images=3):
    generator = torch.Generator().manual_seed(7)
    x = torch.rand((images, 3, *size), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        out = copy_of(net).double()(x[:1].clone())
    shape = out.shape[1:] if isinstance(out, torch.Tensor) else x.shape[1:]
    gt = torch.rand((images, *shape), generator=generator, dtype=torch.float64)
    return x.to(dtype), gt.to(dtype)


def distance(one, two):
    """Worst relative L2 error over scores, losses and completeness of all images."""
    scores = [r.scores().double() for r in (one, two)]
    score_error = ((scores[0] - scores[1]).norm(dim=1) / scores[1].norm(dim=1)).max().item()
    loss_error = ((one.losses - two.losses) / two.losses).abs().max().item()
    # Completeness is relative to the change of the loss; relate it to the larger loss instead.
    change = (two.losses[..., 1] - two.losses[..., 0]).abs() / two.losses.amax(-1)
    completeness_error = ((one.completeness - two.completeness).abs() * change).max().item()
    return max(score_error, loss_error, completeness_error)


def slow_notes(result):
    return [note for note in result.notes if "point by point" in note or "sample by sample" in note]


def make_pair(name, dtype=torch.float64):
    make, rank = NETWORKS[name]
    nets = near(make, dtype) if name.startswith("spectral") else pair(make, dtype)
    return nets, batch_for(nets[1], SPATIAL[rank], dtype)


def check_notes(name, notes, chunk):
    if name in SLOW:
        assert "point by point: " in notes[0] and SLOW[name] in notes[0]
    elif name in LOOPED and (notes or chunk.points * chunk.images > 1):
        # Notes belong to the plan, which all chunks share.
        assert len(notes) == 1 and f"{LOOPED[name]} runs sample by sample" in notes[0]
    else:
        assert not notes


@pytest.mark.parametrize("name", NETWORKS)
def test_float64(name, monkeypatch):
    nets, batch = make_pair(name)
    expected = attribute(*nets, batch, rule="midpoint", backend="reference", steps=4)
    for chunk in CHUNKS:
        if chunk == TOGETHER:  # the chunk of test_float32
            continue
        in_chunks(monkeypatch, chunk, counted=chunk.segments == 1)
        with untouched(*nets, data=batch):
            result = attribute(*nets, batch, rule="midpoint", backend="torch", steps=4)
        assert distance(result, expected) < 1e-10, chunk
        check_notes(name, slow_notes(result), chunk)
    assert result.backend == "torch"


# Networks of all kinds of operations: pointwise, in place, looped, complex, with views and buffers.
COUNTED = {
    "in place",
    "nested",
    "tables",
    "weights of weights",
    "complex filter",
    "joined image",
    "transposed",
    "batch norm",
    "one dimension",
}


def less_often(names, kept):
    """Parameters of which only some belong to the short suite."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in kept)) for name in names]


@pytest.mark.parametrize("name", less_often([n for n in NETWORKS if n not in SLOW], COUNTED))
def test_memory_of_segments_is_counted(name, monkeypatch):
    nets, batch = make_pair(name)
    chunk, counted, original = CHUNKS[-1], [], memory.footprint

    def footprint(*args):
        counted.append(original(*args))
        return counted[-1]

    monkeypatch.setattr(memory, "footprint", footprint)
    in_chunks(monkeypatch, chunk)
    result = attribute(*nets, batch, rule="midpoint", backend="torch", steps=2)
    check_notes(name, slow_notes(result), chunk)
    assert len(counted) == 1 and counted[0] > 0


# Rounding flips units at kinks.
KINKED = {
    "selects",
    "residuals",
    "strided",
    "in place",
    "nested",
    "unbatched",
    "functional",
    "joined image",
}


BACKENDS = [name for name in ("torch", "cpu") if backends()[name].available]


# The last backend runs every network; torch's own kernels run all of them in float64 too.
ON_TORCH = KINKED | {"another precision", "complex filter", "batch norm", "three dimensions"}
CASES = [
    pytest.param(
        name, backend, marks=[pytest.mark.slow] * (backend != BACKENDS[-1] and name not in ON_TORCH)
    )
    for name in NETWORKS
    if name not in SLOW
    for backend in BACKENDS
]


@pytest.mark.parametrize("name, backend", CASES)
def test_float32(name, backend, monkeypatch):
    nets, batch = make_pair(name, torch.float32)
    wide = [copy_of(net).double() for net in nets]
    options = {"rule": "midpoint", "steps": 4}
    exact = tuple(t.double() for t in batch)
    expected = attribute(*wide, exact, backend="reference", **options)
    in_chunks(monkeypatch, TOGETHER)
    result = attribute(*nets, batch, backend=backend, **options)
    assert result.backend == backend
    assert distance(result, expected) < (2e-3 if name in KINKED else 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_averaged_slopes(name):
    nets, batch = make_pair(name)
    options = {"rule": "averaged", "steps": 3}
    expected = attribute(*nets, batch, backend="reference", **options)
    result = attribute(*nets, batch, backend="torch", **options)
    # This network computes in float32.
    assert distance(result, expected) < (1e-7 if name == "another precision" else 1e-10)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_chosen_one_of_several_outputs(chunk, monkeypatch):
    nets = pair(Outputs)
    batch = batch_for(nets[1], (5, 4))
    in_chunks(monkeypatch, chunk)
    options = {"objective": outputs_loss, "rule": "midpoint", "steps": 4}
    expected = attribute(*nets, batch, backend="reference", **options)
    result = attribute(*nets, batch, backend="torch", **options)
    assert distance(result, expected) < 1e-10 and not slow_notes(result)


ZOO = {
    "SRResNet": (lambda: SRResNet(width=8, blocks=2, scale=4), (7, 5)),
    "SRResNet x3": (lambda: SRResNet(width=4, blocks=1, scale=3), (4, 6)),
    "SRCNNStyle": (lambda: SRCNNStyle(widths=(4, 6), scale=2), (7, 5)),
    "EDSR": (lambda: EDSR(width=8, blocks=2, scale=2, res_scale=0.1), (7, 5)),
    "RRDBNet": (lambda: RRDBNet(width=8, growth=4, blocks=1, scale=4), (7, 5)),
    "RRDBNet x2": (lambda: RRDBNet(width=8, growth=4, blocks=1, scale=2), (6, 8)),
    "RCAN": (lambda: RCAN(width=8, groups=1, blocks=2, scale=2, squeeze=4), (7, 5)),
    "SwinIR": (
        lambda: SwinIR(width=12, depths=(2,), heads=(2,), window=4, image_size=8, scale=2),
        (8, 8),
    ),
    "SwinIR odd": (
        lambda: SwinIR(width=12, depths=(2,), heads=(3,), window=4, image_size=8, scale=2),
        (7, 9),
    ),
    "SRVGGNetCompact": (lambda: SRVGGNetCompact(width=8, depth=2, scale=2), (7, 5)),
    "DnCNN": (lambda: DnCNN(3, width=8, depth=4, batch_norm=True), (7, 5)),
    "FFDNet": (lambda: FFDNet(3, width=8, depth=4), (7, 5)),
    "DRUNet": (lambda: DRUNet(3, widths=(4, 4, 8, 8), blocks=1), (9, 8)),
}


# Their kind of computation is in the others.
LONG = ("SRResNet x3", "RRDBNet x2", "SwinIR odd", "DRUNet")


@pytest.mark.parametrize("name", less_often(ZOO, ZOO.keys() - set(LONG)))
def test_the_zoo(name, monkeypatch):
    # `test_memory` counts the memory of most of them.
    compare_zoo(name, monkeypatch, (CHUNKS[0], CHUNKS[-1]), BACKENDS[-1:], counted=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_in_all_chunks_by_all_backends(name, monkeypatch):
    compare_zoo(name, monkeypatch, CHUNKS, BACKENDS, counted=True)


def compare_zoo(name, monkeypatch, chunks, backends, counted):
    make, size = ZOO[name]
    nets = pair(make, torch.float32)
    wide = [copy.deepcopy(net).double() for net in nets]
    batch = batch_for(nets[1], size, torch.float32)
    exact = tuple(t.double() for t in batch)
    expected = attribute(*wide, exact, rule="midpoint", backend="reference", steps=4)
    for chunk in chunks:
        in_chunks(monkeypatch, chunk, counted)
        result = attribute(*wide, exact, rule="midpoint", backend="torch", steps=4)
        assert distance(result, expected) < 1e-10, chunk
        assert not slow_notes(result)
    averaged = attribute(*wide, exact, rule="averaged", backend="reference", steps=3)
    for backend in backends:
        result = attribute(*nets, batch, rule="midpoint", backend=backend, steps=4)
        assert result.backend == backend and distance(result, expected) < 2e-3
        result = attribute(*nets, batch, rule="averaged", backend=backend, steps=3)
        assert distance(result, averaged) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "left", "steps": 7},
        {"rule": "trapezoid", "steps": 3},
        {"rule": "gauss-kronrod", "steps": 7},
        {"rule": "midpoint", "tol": 0.05, "steps": 60},
        {"rule": "left", "tol": 0.2, "steps": 20},
    ],
)
def test_rules_and_refinement(options, monkeypatch):
    nets = pair(kinked)
    batch = batch_for(nets[1], (6, 5), images=5)
    expected = attribute(*nets, batch, backend="reference", **options)
    for chunk in CHUNKS:
        in_chunks(monkeypatch, chunk)
        result = attribute(*nets, batch, backend="torch", **options)
        assert distance(result, expected) < 1e-10
        assert torch.equal(result.points, expected.points)
        torch.testing.assert_close(
            result.error, expected.error, rtol=1e-8, atol=1e-12, equal_nan=True
        )


def test_networks_with_only_some_tensors_that_move(monkeypatch):
    in_chunks(monkeypatch, Chunk(3, 2))
    nets, batch = make_pair("residuals")
    for kept in (".weight", ".bias", "head", "c.3", "slope", "tail"):
        still = copy.deepcopy(nets[1])
        state = {
            key: nets[0].state_dict()[key] if kept not in key else value
            for key, value in nets[1].state_dict().items()
        }
        still.load_state_dict(state)
        for rule in ("midpoint", "averaged"):
            options = {"rule": rule, "steps": 3}
            expected = attribute(still, nets[1], batch, backend="reference", **options)
            result = attribute(still, nets[1], batch, backend="torch", **options)
            torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-10, atol=1e-14)
            assert not slow_notes(result)


def test_layers_in_two_dtypes(monkeypatch):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(3, 4, 3, padding=1).double()
            self.tail = nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x):
            return self.tail(torch.tanh(self.head(x.double())).to(self.tail.weight.dtype))

    nets = pair(lambda: Mixed(), None)
    nets = [net for net in nets]
    x, gt = (torch.rand(3, 3, 5, 4, dtype=torch.float64) for _ in range(2))
    in_chunks(monkeypatch, Chunk(2, 2))
    expected = attribute(*nets, (x, gt), backend="reference", steps=3)
    result = attribute(*nets, (x, gt), backend="torch", steps=3)
    assert distance(result, expected) < 1e-5 and not slow_notes(result)
