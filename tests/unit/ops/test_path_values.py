"""What all path operations share: values on the line, sums that fill no memory, layouts."""

import pytest
import torch

from faigfast.ops.path_values import (
    empty_at_points,
    needed_gradients,
    new_gradient_sums,
    on_line,
    one_batch,
    wide,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_ends_of_the_line(dtype):
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(1000, generator=generator).to(dtype) for _ in range(2))
    zero, one = torch.tensor([0.0, 1.0], dtype=dtype)
    assert torch.equal(on_line(start, end - start, zero), start)
    # One rounding in Δ and one in the sum.
    rounding = torch.finfo(dtype).eps / 2 * ((end - start).abs() + end.abs())
    assert ((on_line(start, end - start, one) - end).abs() <= 1.01 * rounding).all()
    assert on_line(start, None, one) is start


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_sums_fill_no_memory_and_are_wide(dtype, expected):
    gradient_sums = new_gradient_sums(torch.Size((64, 64, 3, 3)), 5, torch.empty(0, dtype=dtype))
    assert gradient_sums.shape == (5, 64, 64, 3, 3) and gradient_sums.dtype == expected == wide(
        dtype
    )
    assert gradient_sums.is_leaf and gradient_sums.requires_grad and not gradient_sums.any()
    assert gradient_sums.untyped_storage().nbytes() == expected.itemsize


def test_room_keeps_the_layout():
    last = torch.zeros(1, 2, 3, 4, 5).movedim(2, -1).contiguous().movedim(-1, 2)
    assert empty_at_points(last, 1).stride() == last.stride()
    assert empty_at_points(last, 6).shape == (6, 2, 3, 4, 5)
    assert empty_at_points(last, 6)[3].is_contiguous(memory_format=torch.channels_last)
    assert empty_at_points(torch.zeros(1, 2, 3), 6).is_contiguous()
    alike = torch.zeros(4, 1, 3).expand(4, 2, 3)
    assert empty_at_points(alike, 4).is_contiguous()


def test_one_sample_is_told_to_be_channels_last():
    last = torch.zeros(4, 5, 3).movedim(-1, 0)[None]  # [1, 3, 4, 5]
    odd = last.as_strided(last.shape, (1, *last.stride()[1:]))
    assert one_batch(odd).stride() == (60, 1, 15, 3)
    assert one_batch(odd).data_ptr() == odd.data_ptr()
    several = torch.zeros(2, 3)
    assert one_batch(several) is several


def test_only_wanted_gradients_are_given():
    parts = [torch.ones(4, 2), torch.ones(3), torch.ones(5)]
    gx, gw, gb = needed_gradients(parts, [True, False, True], torch.zeros(1, 2))
    assert torch.equal(gx, torch.full((1, 2), 4.0)) and gw is None and gb is parts[2]
    assert needed_gradients(parts, [False] * 3, torch.zeros(1, 2)) == [None] * 3
