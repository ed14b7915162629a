"""All GPU backends on the trained pairs, against the literal loop in float64."""

import pytest
import torch
from cases.gpu_bounds import BOUNDS

from faigfast import attribute
from faigfast.backend.catalogue import backends
from faigfast.backend.gpu import auto_precision
from faigfast.backend.gpu.auto_precision import FASTEST_FIRST
from faigfast.backend.precision import MATRIX, proper_float32
from faigfast.zoo.pairs import PAIRS, shipped_pair

TOP = 0.01
STEPS = 20

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no NVIDIA GPU or driver"),
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """Networks, crops of photographs outside their training set, and exact scores."""
    pytest.importorskip("skimage")
    from faigfast.analysis.evaluation import crops
    from faigfast.data import KEPT_OUT, Degradation, photographs

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


def overlaps(exact, result):
    """Common share of the top 1 %, by degradation."""
    tops = (
        [set(part.top(name, TOP).indices.tolist()) for part in (exact, result)]
        for name in exact.degradations
    )
    return [len(best & other) / len(best) for best, other in tops]


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("backend", ["torch", "triton", "cuda"])
def test_rankings(backend, precision, pair):
    if not backends()[backend].available:
        pytest.skip(backends()[backend].reason)
    if backend != "triton" and precision in MATRIX:
        pytest.skip("it has no such products")
    nets, batch, exact = pair
    with proper_float32():
        result = attribute(*nets, batch, steps=STEPS, backend=backend, precision=precision)
    assert result.backend == backend
    median, worst, least = BOUNDS[precision]
    errors = []
    for name in exact.degradations:
        scores, expected = result.scores(name).double(), exact.scores(name).double()
        errors.append((scores - expected).abs().sum(1) / expected.sum(1))
    errors, kept = torch.cat(errors), overlaps(exact, result)
    print(f"{backend} {precision}: errors {errors.tolist()}, overlap {kept}")
    assert errors.median() <= median and errors.max() <= worst, errors
    assert min(kept) >= least, kept


@pytest.mark.parametrize("only", FASTEST_FIRST)
def test_what_auto_takes_keeps_the_ranking(only, pair, monkeypatch):
    """Let `auto` choose between float32 and one other precision at a time."""
    monkeypatch.setattr(auto_precision, "FASTEST_FIRST", (only,))
    monkeypatch.setattr(auto_precision, "_known", {})
    nets, batch, exact = pair
    result = attribute(*nets, batch, steps=STEPS)
    print(result.precision, *result.notes, sep="\n")
    assert result.precision in (only, "fp32")
    assert min(overlaps(exact, result)) >= 0.99


def test_what_is_taken_where_nothing_is_said(pair):
    """The default measures the precision, chooses the kernels and keeps float64's ranking."""
    nets, batch, exact = pair
    result = attribute(*nets, batch, steps=STEPS)
    assert any(note.startswith("precision: ") for note in result.notes), result.notes
    print(f"{result.backend} {result.precision}:", *result.notes, sep="\n")
    assert min(overlaps(exact, result)) >= 0.99


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
