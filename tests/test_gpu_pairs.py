"""All backends of a GPU on the trained pairs, against the literal loop in float64."""

import pytest
import torch

from faigfast import attribute
from faigfast.backends import backends
from faigfast.precision import MATRIX, proper_float32
from faigfast.zoo.pairs import PAIRS, shipped_pair

TOP = 0.01
STEPS = 20
# Median and worst relative L1 of an image's scores, and the least overlap of the top 1 %: 0.99 in
# whatever `auto` may take.
BOUNDS = {
    "fp32": (1e-4, 2e-3, 0.995),
    "bf16x3": (1e-3, 1e-2, 0.99),
    "tf32": (1e-2, 5e-2, 0.99),
    "fp16": (1e-2, 5e-2, 0.99),
    "bf16": (5e-2, 0.2, 0.99),
}

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU or driver"
)


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """Networks, crops of photographs that they were not trained on, and what is exact."""
    pytest.importorskip("skimage")
    from faigfast.data import KEPT_OUT, Degradation, photographs
    from faigfast.findings.evaluation import crops

    degradations = {"blur": Degradation(blur=2.0), "noise": Degradation(noise=0.1)}
    data = crops(photographs(KEPT_OUT), degradations, 96).part(slice(4, None, 30))
    batch = {
        "lq": {name: x.cuda() for name, x in data.lq.items()},
        "gt": data.gt.cuda(),
    }
    nets = [net.cuda() for net in shipped_pair(request.param)]
    with proper_float32():
        exact = attribute(*nets, batch, steps=STEPS, backend="reference", precision="fp64")
    return nets, batch, exact


@pytest.mark.parametrize("tuned", ["0", "1"], ids=["own kernels", "the fastest"])
@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("backend", ["torch", "triton", "cuda"])
def test_rankings(backend, precision, tuned, pair, monkeypatch):
    if not backends()[backend].available:
        pytest.skip(backends()[backend].reason)
    if backend == "torch" and tuned == "1":
        pytest.skip("it has one way alone")
    if backend != "triton" and precision in MATRIX:
        pytest.skip("it has no such products")
    monkeypatch.setenv("FAIGFAST_TUNE", tuned)
    nets, batch, exact = pair
    with proper_float32():
        result = attribute(*nets, batch, steps=STEPS, backend=backend, precision=precision)
    assert result.backend == backend
    median, worst, least = BOUNDS[precision]
    errors, overlaps = [], []
    for name in exact.degradations:
        found, expected = result.scores(name).double(), exact.scores(name).double()
        errors.append((found - expected).abs().sum(1) / expected.sum(1))
        best, other = (set(part.top(name, TOP).indices.tolist()) for part in (exact, result))
        overlaps.append(len(best & other) / len(best))
    errors = torch.cat(errors)
    print(f"{backend} {precision}: errors {errors.tolist()}, overlap {overlaps}")
    assert errors.median() <= median and errors.max() <= worst, errors
    assert min(overlaps) >= least, overlaps


def test_what_is_taken_where_nothing_is_said(pair):
    """The precision is measured, the kernels chosen, and the ranking float64's."""
    nets, batch, exact = pair
    result = attribute(*nets, batch, steps=STEPS)
    assert any(note.startswith("precision: ") for note in result.notes), result.notes
    print(f"{result.backend} {result.precision}:", *result.notes, sep="\n")
    for name in exact.degradations:
        best, other = (set(part.top(name, TOP).indices.tolist()) for part in (exact, result))
        assert len(best & other) >= 0.99 * len(best)


def test_every_gpu_at_once(pair):
    nets, batch, _ = pair
    result = attribute(*nets, batch, steps=4, devices="all", precision="fp32")
    alone = attribute(*nets, batch, steps=4, precision="fp32")
    for name in alone.degradations:
        torch.testing.assert_close(
            result.scores(name),
            alone.scores(name),
            rtol=1e-4,
            atol=1e-6 * float(alone.scores(name).max()),
        )
