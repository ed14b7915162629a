"""The Triton kernels on a GPU, every mode against float64; skipped where there is none."""

from dataclasses import replace

import pytest
import torch
from path_cases import assert_near, conv_case, expected, found, poisoned
from triton_cases import CASES, KINDS, OTHERS, masters_of

from faigfast import _triton, attribute
from faigfast.ops.table import Use, using
from faigfast.zoo.pairs import shipped_pair

pytestmark = pytest.mark.skipif(
    bool(_triton.refuses()) or _triton.interpreted(),
    reason=f"the kernels were not run on a device: {_triton.refuses() or 'the interpreter'}",
)
# Relative L2 of every value and gradient of one point and image.
BOUNDS = {"ieee": 1e-5, "bf16x3": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 2e-2}
# Near a kink rounding chooses the side, so the slopes on both are nearly the same.
SMOOTH = dict(activation="leaky_relu", slope=0.9)


@pytest.fixture(autouse=True)
def own_choices(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIGFAST_CACHE", str(tmp_path))


def on_gpu(case):
    def moved(part):
        return None if part is None else part.cuda()

    line = [None if part is None else tuple(map(moved, part)) for part in case.line]
    parts = {name: moved(getattr(case, name)) for name in ("x", "alpha", "residual")}
    return replace(case, line=line, **parts)


def check(case, mode="ieee", masters=False):
    kind = KINDS.get(mode, torch.float32)
    given = on_gpu(masters_of(case, kind) if masters else case.to(kind))
    use = Use("triton", mode=mode)
    with using(use), poisoned():
        result = found(given)
    assert not use.refused
    assert_near(result, expected(given.to(torch.float64)), BOUNDS[mode])


@pytest.mark.parametrize("tuned", ["0", "1"])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, tuned, monkeypatch):
    monkeypatch.setenv("FAIGFAST_TUNE", tuned)
    check(conv_case(**CASES[name]))


@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (64, 3), (100, 48), (256, 16)], ids=str)
@pytest.mark.parametrize("mode", BOUNDS)
def test_modes(mode, channels):
    case = conv_case(channels=channels, size=(47, 31), residual="points", **SMOOTH)
    check(case, mode, masters=mode in KINDS)
    check(conv_case(channels=(64, 256), shuffle=2, size=(9, 7), **SMOOTH), mode, mode in KINDS)


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations(name):
    make, options = OTHERS[name]
    check(make(**options))


@pytest.mark.parametrize("precision", ["fp32", "bf16x3", "tf32", "fp16", "bf16"])
def test_trained_pair(precision):
    """Top-1 % overlap of the ranking with float64, and no part of the network left out."""
    baseline, target = (net.cuda() for net in shipped_pair())
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(
        torch.rand(2, 3, 12, 12, generator=generator), size=(48, 48), mode="bicubic"
    ).cuda()
    gt = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic")
    result = attribute(baseline, target, (x, gt), backend="triton", precision=precision)
    exact = attribute(
        *(net.double() for net in (baseline, target)), (x.double(), gt.double()),
        backend="torch",
    )  # fmt: skip
    assert not any("point by point" in note for note in result.notes), result.notes
    for a, b in zip(result.scores(), exact.scores(), strict=True):
        best = len(b) // 100
        top, expected_top = (set(part.topk(best).indices.tolist()) for part in (a, b))
        assert len(top & expected_top) / best >= (0.995 if precision == "fp32" else 0.99)
