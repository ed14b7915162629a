"""Gradients of convolutions whose factors are rounded to bfloat16, on a CPU."""

import math

import pytest
import torch
from cases.cpu_kernels import poisoned_results
from torch.nn.grad import conv2d_input, conv2d_weight

import faigfast
from faigfast.backend.cpu import extension as _extension
from faigfast.ops.conv.cpu import conv_backward
from faigfast.ops.conv.spec import Backward, ConvSpec, PathParameters
from faigfast.ops.registry import Use, using
from faigfast.zoo.pairs import shipped_pair

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)

LAYERS = {
    "whole tiles": dict(channels=(32, 32), size=(9, 12)),
    "one pixel": dict(channels=(16, 16), size=(1, 1)),
    "parts of tiles": dict(channels=(17, 40), size=(7, 5)),
    "odd sizes": dict(channels=(64, 48), size=(47, 31)),
    "strips of a wide image": dict(channels=(16, 32), size=(4, 230)),
    "one row": dict(channels=(16, 16), size=(1, 33)),
    "one column": dict(channels=(16, 16), size=(33, 1)),
    "shuffled": dict(channels=(32, 80), size=(9, 11), shuffle=2),
    "nothing around": dict(channels=(32, 64), size=(9, 11), padding=0),
    "far beyond the image": dict(channels=(16, 16), size=(4, 3), padding=6),
    "5×5": dict(channels=(16, 32), size=(9, 11), kernel=5, padding=2),
    "1×1": dict(channels=(48, 32), size=(9, 11), kernel=1, padding=0),
    "wide": dict(channels=(256, 100), size=(6, 7)),
    "leaky": dict(channels=(32, 32), size=(9, 12), activation="leaky_relu"),
    "factors": dict(channels=(32, 32), size=(9, 12), activation="factor"),
    "scaled": dict(channels=(32, 32), size=(9, 12), activation="none", scale=0.2),
    "shared x": dict(channels=(32, 32), size=(9, 12), shared=True),
}


def gradients_of(layer):
    """Arguments of the operation for 3 points of 2 images."""
    options = dict(kernel=3, padding=1, shuffle=1, activation="relu", scale=1.0, shared=False)
    options |= layer
    (inputs, outputs), size, kernel = options["channels"], options["size"], options["kernel"]
    grown = [(n + 2 * options["padding"] - kernel + 1) * options["shuffle"] for n in size]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    width = outputs // options["shuffle"] ** 2
    # Weights of a few bits: γ(α) is exact, whether or not a processor fuses the sum.
    whole = (normal(outputs, inputs, kernel, kernel).mul(64).round() for _ in range(2))
    w0, dw = (part / size for part, size in zip(whole, (256, 1024), strict=True))
    spec = ConvSpec(
        padding=[options["padding"]] * 2, activation=options["activation"], slope=0.1,
        scale=options["scale"], shuffle=options["shuffle"],
    )  # fmt: skip
    return Backward(
        gy=normal(3, 2, *grown, width).movedim(-1, 2),
        x=normal(1 if options["shared"] else 3, 2, *size, inputs).movedim(-1, 2),
        saved=normal(3, 2, *grown, width).movedim(-1, 2),
        parameters=PathParameters(
            w0, dw, normal(outputs), None, None, None, torch.tensor([0.25, 0.5, 1])
        ),
        images=2,
        needs=[True, True, True, False],
        spec=spec,
    )


def rounded(part):
    return part.to(torch.bfloat16).double()


def expected(b):
    """The same sums in float64, of rounded factors."""
    spec, (w0, dw, *_), alpha = b.spec, b.parameters, b.parameters.alpha
    derivatives = {
        "none": torch.ones_like(b.saved),
        "relu": (b.saved > 0).float(),
        "leaky_relu": torch.where(b.saved > 0, 1.0, spec.slope),
        "factor": b.saved,
    }
    gz = torch.nn.functional.pixel_unshuffle(
        b.gy * spec.scale * derivatives[spec.activation], spec.shuffle
    )
    x = b.x.expand(len(alpha), *b.x.shape[1:])
    padding = tuple(spec.padding)
    gx = torch.stack([
        conv2d_input(x[p].shape, rounded(w0 + a * dw), rounded(gz[p]), padding=padding)
        for p, a in enumerate(alpha)
    ])  # fmt: skip
    gw = torch.stack([
        sum(
            conv2d_weight(rounded(x[p, n, None]), w0.shape, rounded(gz[p, n, None]),
                          padding=padding)
            for p in range(len(alpha))
        )
        for n in range(b.images)
    ])  # fmt: skip
    return gx, gw, gz.double().sum((0, 3, 4))


def computed(b, mode="bf16"):
    with using(Use("cpu", mode=mode)), poisoned_results():
        return conv_backward(b)[:3]


@pytest.mark.parametrize("name", LAYERS)
def test_the_sums_are_of_rounded_factors(name, isa):
    b = gradients_of(LAYERS[name])
    for part, right in zip(computed(b), expected(b), strict=True):
        assert float((part - right).norm() / right.norm()) <= 1e-5


def test_layers_with_few_channels_stay_in_float32():
    b = gradients_of(dict(channels=(3, 32), size=(9, 12)))
    for narrow, wide in zip(computed(b), computed(b, "ieee"), strict=True):
        assert torch.equal(narrow, wide)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_stay_so(value, isa):
    b = gradients_of(LAYERS["whole tiles"])
    b.gy[0, 0, 0, 4, 4] = b.saved[0, 0, 0, 4, 4] = value
    b.saved[0, 0, 0, 4, 4] = 1
    gx, gw, gb = computed(b)
    assert not (gx[0, 0, :, 3:6, 3:6].isfinite().any() or gw[0, 0].isfinite().any())
    assert gx[1:].isfinite().all() and gw[1].isfinite().all() and not gb[0, 0].isfinite()


def test_scores_are_close_and_the_precision_is_told(isa):
    networks = shipped_pair("srresnet-32x8-x2")
    x = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    gt = networks[1](x).detach() + 0.05
    exact, narrow = (
        faigfast.attribute(*networks, (x, gt), steps=6, backend="cpu", precision=precision)
        for precision in ("fp32", "bf16")
    )
    error = (narrow.scores() - exact.scores()).abs().sum(1) / exact.scores().abs().sum(1)
    assert 1e-5 < error.max() < 2e-3
    top, narrow_top = (set(r.top("lq", 0.01).indices.tolist()) for r in (exact, narrow))
    assert len(top & narrow_top) >= 0.99 * len(top)
    assert narrow.precision == "bf16" and narrow.scores().dtype == torch.float32
    emulated = any(note.startswith("precision: bf16 without AMX") for note in narrow.notes)
    assert emulated != _extension.module.amx()
