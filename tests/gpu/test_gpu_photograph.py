"""A photograph and a network of usual size on a GPU."""

import re

import pytest
import torch

from faigfast import attribute
from faigfast.bench.families import FAMILIES
from faigfast.bench.workloads import drawn
from faigfast.engine import integrate

SIZE = 1356, 2040  # of the ground truth, twice the input's
STEPS = 4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU or driver"),
]


def photograph(size, device):
    """Networks, and an image with its ground truth."""
    nets = [net.to(device) for net in FAMILIES["srresnet"].pair()]
    gt = drawn(1, *size, torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(gt, scale_factor=0.5, mode="area")
    return nets, (x.to(device), gt.to(device))


@pytest.fixture
def chunks(monkeypatch):
    """(points, segments of the network) of every chunk that ran."""
    calls, run = [], integrate.accumulate

    def seen(plan, prepared, points, factors, gt, loss, segments):
        calls.append((len(factors), segments))
        return run(plan, prepared, points, factors, gt, loss, segments)

    monkeypatch.setattr(integrate, "accumulate", seen)
    return calls


def attributed(nets, batch, chunks, **options):
    """Attribute, print and return the scores, the peak of memory in bytes and the chunks."""
    on_gpu = batch[0].is_cuda
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    chunks.clear()
    result = attribute(*nets, batch, steps=STEPS, **options)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    height, width = batch[1].shape[2:]
    print(
        f"{width}×{height}, {result.backend} {result.precision}: {peak / 2**30:.2f} GiB at the "
        f"peak; points and segments of the chunks: {sorted(set(chunks))}",
        *result.notes,
        sep="\n",
    )
    assert not any("point by point" in note for note in result.notes), result.notes
    return result.scores().double().cpu(), peak, set(chunks)


def assert_whole_and_in_segments(nets, batch, chunks, **options):
    unsegmented, peak, made = attributed(nets, batch, chunks, **options)
    assert unsegmented.isfinite().all() and unsegmented.sum() > 0
    assert all(points <= STEPS for points, _ in made)
    with pytest.raises(ValueError, match="memory is 1 bytes") as refused:
        attribute(*nets, batch, steps=STEPS, memory=1, **options)
    (least,) = re.findall(r"needs (\d+)", str(refused.value))
    segmented, lower, made = attributed(nets, batch, chunks, memory=int(least), **options)
    assert made and all(points == 1 and segments > 1 for points, segments in made), made
    # Two 16-bit runs differ where rounding decides the side of a kink.
    assert (segmented - unsegmented).abs().sum() <= 2e-2 * unsegmented.sum()
    return peak, lower


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_large_photograph(backend, chunks):
    nets, batch = photograph(SIZE, "cuda")
    peak, lower = assert_whole_and_in_segments(
        nets, batch, chunks, backend=backend, precision="fp16"
    )
    assert lower < peak
