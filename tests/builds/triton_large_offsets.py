"""One point of more than 2^31 numbers in Triton's interpreter; test_triton.py runs this file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from faigfast.kernels import conv as orchestra
from faigfast.kernels import conv_weight_gradient
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Tile

FAR = (8193, 16384)  # height and width, with 16 channels; most of it is never touched


def far(seed, kind=np.float16):
    """One image [1, 1, H, W, 16] of zeros, which take no memory, except for its last two lines."""
    x = torch.from_numpy(np.zeros((1, 1, *FAR, 16), kind))
    assert x.numel() > 2**31
    generator = torch.Generator().manual_seed(seed)
    x[..., -2:, :, :] = torch.randint(-3, 4, (2, FAR[1], 16), generator=generator).half()
    return x


def last_lines(x):
    return x[0, 0, -2:].movedim(-1, 0).float()


@pytest.fixture
def far_layer():
    w = torch.randint(-2, 3, (16, 3, 3, 16), generator=torch.Generator().manual_seed(1)).float()
    sides = ((3, 3), (1, 1), (1, 1), (1, 1))
    geometry = Geometry(16, 16, *sides, *FAR, *FAR)
    nothing = (None, None)
    return orchestra.Layer((w, None), nothing, torch.ones(1), geometry, "none", 0.0, 1.0, "fp16")


@pytest.fixture
def run_last(monkeypatch):
    """Run only the last programs of a launch, without the copy of whole tensors afterwards."""
    builder, offsets = interpreter.interpreter_builder, {}
    given = builder.create_get_program_id

    def shifted(axis):
        handle = given(axis)
        return interpreter.TensorHandle(handle.data + np.int32(offsets[axis]), handle.dtype)

    def run(launch, tile, *counts):
        grid = launch.grid(tile.constants)
        offsets.update({i: n - m for i, (n, m) in enumerate(zip(grid, counts, strict=True))})
        replace(launch, grid=counts, tiles=(tile,)).run()

    monkeypatch.setattr(builder, "create_get_program_id", shifted)
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
    return run


def test_values_far_into_a_point(far_layer, run_last):
    x, y = far(2), far(3)
    (launch,) = orchestra.forward_launches(far_layer, x, (None, None), None, y, None, "")
    run_last(launch, Tile(32, 16, 16), 2, 1, 1)
    w = far_layer.w[0].movedim(-1, 1)
    exact = torch.conv2d(last_lines(x), w, padding=1)
    assert torch.equal(last_lines(y)[:, 1, -64:], exact[:, 1, -64:].half().float())


def test_input_gradients_far_into_a_point(far_layer, run_last):
    gy, gx = far(2), far(3)
    (launch,) = orchestra.input_gradient_launches(far_layer, gy, gx)
    run_last(launch, Tile(32, 16, 16), 2, 1, 1)
    w = far_layer.w[0].movedim(-1, 1)
    exact = torch.conv_transpose2d(last_lines(gy)[None], w, padding=1)[0]
    assert torch.equal(last_lines(gx)[:, 1, -64:], exact[:, 1, -64:].half().float())


def test_weight_gradients_far_into_a_point(far_layer, run_last, monkeypatch):
    monkeypatch.setattr(orchestra, "ON_CPU", 2**31)  # one share per run
    x, gy = far(2), far(3)
    launch, gw = orchestra.weight_gradient_launch(far_layer, gy, x, 1)
    run_last(launch, Tile(16, 16, 16), 9, 1, 1)
    pixels = conv_weight_gradient.RUN
    g = torch.zeros(16, 2, FAR[1])
    g[:, 1, -pixels:] = last_lines(gy)[:, 1, -pixels:]
    exact = torch.nn.grad.conv2d_weight(last_lines(x)[None], (16, 16, 3, 3), g[None], padding=1)
    assert torch.equal(gw[-1, 0].movedim(-1, 1), exact)
