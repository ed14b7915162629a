"""Padding by reflection, and the middle of an output."""

import pytest
import torch
from torch.nn import functional as F

from faigfast.integration.objective import is_ours, squared_error
from faigfast.integration.padding import (
    OnMiddle,
    checked_pad,
    middle,
    on_middle,
    own_part,
    reflected,
    without_padding,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sides", [(5,), (4, 7), (3, 4, 5)])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_reflection_as_torch_has_it(dtype, sides, pad):
    x = torch.rand(2, 3, *sides).to(dtype)
    expected = F.pad(x.float(), [pad, pad] * len(sides), mode="reflect").to(dtype)
    assert torch.equal(reflected(x, pad), expected)


@pytest.mark.parametrize("x", [torch.rand(1, 3, 4, 9), torch.rand(1, 3)])
def test_reflection_reaches_one_pixel_less_than_a_side(x):
    with pytest.raises(ValueError, match=r"pad is 4 for an image of .*; reflection reaches one"):
        reflected(x, 4)


def test_middle():
    y = torch.arange(36.0).view(1, 1, 6, 6)
    assert middle(y, (2, 4), 1).tolist() == [[[[13, 14, 15, 16], [19, 20, 21, 22]]]]
    assert middle(y, (6, 6), 0).shape == y.shape
    samples = torch.rand(2, 3, 1, 5, 8, 8)  # [P, N, 1, C, H, W]
    assert torch.equal(middle(samples, (4, 4), 1), samples[..., 2:6, 2:6])
    with pytest.raises(
        ValueError, match=r"pad=3 the network makes 6×6 and gt is 8×6; .*larger pad"
    ):
        middle(y, (8, 6), 3)
    with pytest.raises(ValueError, match=r"6×6 and gt is 6×3; expected an even difference"):
        middle(y, (6, 3), 3)


@pytest.mark.parametrize("pad", [2.0, "2", True, None])
def test_kinds_of_pad(pad):
    with pytest.raises(TypeError, match=r"pad is .*; expected a number of pixels"):
        checked_pad(pad)
    with pytest.raises(ValueError, match="pad is -1; expected"):
        checked_pad(-1)


def test_own_part_of_an_output():
    x = torch.rand(1, 3, 10, 12)
    assert own_part(torch.rand(1, 3, 28, 32), x, 2).shape == (1, 3, 20, 24)  # ×2
    assert own_part(torch.rand(1, 3, 20, 24), x, 2).shape == (1, 3, 20, 24)  # valid ×2
    assert own_part(torch.rand(1, 3, 8, 10), x, 0).shape == (1, 3, 8, 10)  # not enough: all of it


def test_objectives():
    assert on_middle(squared_error, 0) is squared_error
    padded = on_middle(squared_error, 2)
    assert without_padding(padded) is squared_error is without_padding(squared_error)
    assert is_ours(padded) and not is_ours(OnMiddle(test_middle, 2))
    y, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    assert torch.equal(padded(y, gt), squared_error(y[..., 2:6, 2:6], gt))
    for output, truth in (((y,), gt), (y, gt[0]), (y[:, :, 0], gt), (y[..., 0, 0], gt[..., 0, 0])):
        with pytest.raises(ValueError, match=r"with pad=2 .*; expected images \[N, C, \*spatial\]"):
            padded(output, truth)
