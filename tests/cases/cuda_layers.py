"""Layers for the tests of the CUDA kernels, emulated and on a device."""

from contextlib import contextmanager
from unittest import mock

import torch

from faigfast.ops.registry import choose

CASES = {
    "plain": dict(),
    "relu": dict(activation="relu"),
    "leaky": dict(activation="leaky_relu", slope=0.2, scale=0.5),
    "prelu": dict(activation="prelu"),
    "one slope": dict(activation="prelu", single=True, scale=0.3),
    "silu": dict(activation="silu", scale=2.0),
    "residual": dict(residual="points", scale=0.2),
    "relu, residual": dict(activation="relu", residual="shared"),
    "many": dict(points=5, images=3, samples=2, size=(3, 4), activation="relu"),
    "packs": dict(channels=(16, 48), size=(9, 6), activation="relu"),
    "wide": dict(channels=(3, 260), size=(5, 3), activation="leaky_relu"),
    "several tiles": dict(channels=(2, 133), size=(3, 3), points=1, activation="prelu"),
    "shared": dict(shared=True, points=3, activation="relu"),
    "shuffled": dict(channels=(5, 12), shuffle=2, activation="leaky_relu"),
    "shuffled thrice": dict(channels=(4, 18), shuffle=3, size=(4, 5), scale=0.5),
    "1-d": dict(size=(11,), activation="relu"),
    "3-d": dict(size=(3, 4, 2), activation="relu"),
    "1×1": dict(kernel=1, padding=0, activation="relu"),
    "strided": dict(stride=2, kernel=5, padding=2, activation="relu"),
    "transposed": dict(transposed=True, stride=2, output_padding=1, activation="relu"),
    "groups": dict(channels=(4, 6), groups=2, activation="relu"),
    "still": dict(weight="still", activation="relu"),
    "no bias": dict(bias=None, activation="relu"),
    "channels last": dict(layout="channels last", channels=(8, 16), activation="relu"),
    "images alike": dict(layout="images alike", activation="relu"),
    "gradients alike": dict(alike=True, points=3, activation="relu"),
    "one pixel": dict(size=(1, 1), points=1, images=1, channels=(1, 1), activation="relu"),
}


# Shapes [N, O, I, *k] of gradient sums.
SHAPES = [
    (1, 1, 1, 1, 1), (2, 7, 5, 3, 3), (3, 33, 40, 3, 3), (2, 3, 5, 1, 1), (2, 5, 3, 9, 9),
    (2, 4, 3, 1, 5), (2, 5, 4, 2, 2), (2, 3, 5, 3, 3, 3), (2, 300, 3, 4, 4), (2, 6, 5, 3),
]  # fmt: skip


# Layers of the Hopper kernel. Sums of small integers are exact in float32 and rounded once.
LAYER = dict(channels=(64, 64), layout="channels last", integers=True)


HOPPER = {
    "one tile": dict(size=(16, 16), points=1, images=1),
    "smaller": dict(size=(5, 7), points=1, images=1),
    "one pixel": dict(size=(1, 1), points=1, images=2),
    "odd": dict(size=(17, 33), points=1, images=1),
    "points": dict(size=(18, 16), points=3, images=1),
    "images and samples": dict(size=(8, 9), points=2, images=2, samples=2),
    "shared": dict(size=(9, 8), points=2, images=2, shared=True),
    "relu": dict(size=(12, 19), points=2, images=1, activation="relu"),
    "leaky": dict(size=(12, 5), points=2, images=1, activation="leaky_relu", slope=0.5),
    "no bias": dict(size=(4, 4), points=1, images=1, bias=None),
    "residual": dict(size=(17, 5), points=2, images=1, residual="points", scale=0.5),
    "shared residual": dict(size=(6, 18), points=2, images=1, residual="shared", scale=2.0),
    "still": dict(size=(6, 6), points=2, images=1, weight="still"),
}


def forward(case, dtype):
    """The path operation of a case, forward only."""
    case = case.to(dtype)
    with torch.no_grad():
        return case.run(
            case.x,
            [(None,) * 3 if part is None else (*part, None) for part in case.line],
            case.alpha,
            case.residual,
        )


@contextmanager
def served_by(name):
    """Fail unless a kernel of this name computes every operation inside, and one at least."""
    kernels = set()

    def chosen(*arguments):
        kernel = choose(*arguments)
        kernels.add(kernel.name)
        return kernel

    with mock.patch("faigfast.ops.registry.choose", chosen):
        yield
    assert kernels == {name}
