"""Calls of path operations for the Triton kernels, in the interpreter and on a device."""

from dataclasses import replace

import torch
from cases.path_operations import affine_case, linear_case, prelu_case

KINDS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def masters_of(case, kind):
    """The case with 16-bit images and float32 weights and points."""
    wide = case.to(torch.float32)
    return replace(case.to(kind), line=wide.line, alpha=wide.alpha)


# Arguments of conv_case.
CASES = {
    "1×1": dict(size=(1, 1), activation="relu"),
    "1×N, more points": dict(size=(1, 9), points=3, images=1),
    "N×1, more images": dict(size=(6, 1), points=1, images=3, activation="relu"),
    "7×5": dict(size=(7, 5), activation="relu"),
    "channels beyond a tile": dict(channels=(17, 20), size=(2, 3)),
    "one channel": dict(channels=(1, 1), size=(4, 3)),
    "kernel 1": dict(kernel=1, padding=0, size=(4, 3), activation="relu"),
    "kernel 1×3, stride 1×2, samples": dict(
        kernel=(1, 3), padding=(0, 2), stride=(1, 2), samples=2, size=(3, 5), images=2
    ),
    "kernel 5, stride 2, dilation 2": dict(
        kernel=5, stride=2, dilation=2, padding=3, size=(7, 6), channels=(2, 3), points=1
    ),
    "stride 3 without padding": dict(stride=3, padding=0, size=(8, 7), points=1),
    "shared": dict(shared=True, points=3, images=1, size=(3, 4), activation="relu"),
    "strided": dict(layout="strided", size=(3, 4)),
    "images alike": dict(layout="images alike", size=(3, 4)),
    "channels last": dict(layout="channels last", size=(3, 4)),
    "gradients alike": dict(alike=True, points=3, size=(3, 4), activation="relu"),
    "no bias": dict(bias=None, size=(3, 4)),
    "bias stands still": dict(bias="still", size=(3, 4)),
    "weight stands still": dict(weight="still", size=(3, 4), activation="leaky_relu"),
    "residual": dict(residual="points", scale=0.2, size=(3, 4), activation="relu"),
    "shared residual": dict(residual="shared", size=(3, 4), activation="leaky_relu"),
    "scale": dict(scale=-0.3, size=(3, 4), activation="relu"),
    "prelu": dict(activation="prelu", size=(3, 4), residual="points", scale=0.5),
    "prelu, one slope": dict(activation="prelu", single=True, size=(3, 4)),
    "prelu, slope stands still": dict(activation="prelu", slopes="still", size=(3, 4)),
    "gelu": dict(activation="gelu", size=(3, 4), residual="points", scale=2.0),
    "sigmoid": dict(activation="sigmoid", size=(3, 4), scale=2.0),
    "shuffled": dict(channels=(3, 12), shuffle=2, size=(3, 4), activation="leaky_relu"),
    "shuffled, residual": dict(
        channels=(2, 9), shuffle=3, size=(2, 3), scale=0.5, residual="points", activation="relu"
    ),
}

# Maker and arguments.
OTHERS = {
    "linear": (linear_case, dict(rows=5, features=(17, 3))),
    "linear, one row, shared": (linear_case, dict(rows=1, shared=True, points=3, images=1)),
    "linear, weight stands still": (linear_case, dict(weight="still")),
    "linear, no bias, strided": (linear_case, dict(bias=None, layout="strided")),
    "linear, gradients alike": (linear_case, dict(alike=True, points=3)),
    "affine": (affine_case, dict(size=7, channels=5)),
    "affine, channels last": (affine_case, dict(size=1, channels=37, rows=9, images=3)),
    "affine, shared": (affine_case, dict(shared=True, points=3, size=40)),
    "affine, bias stands still": (affine_case, dict(bias="still", images=1, points=1)),
    "affine, strided": (affine_case, dict(layout="strided")),
    "prelu": (prelu_case, dict(size=7)),
    "prelu, one slope": (prelu_case, dict(single=True, size=33, images=1)),
    "prelu, shared": (prelu_case, dict(shared=True, points=3, layout="images alike")),
}
