"""Sizes of one convolution of two dimensions, as the kernels take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """Input H × W × C, output H' × W' × O before its pixels are shuffled.

    Parameters
    ----------
    channels, outputs : int
        C and O.
    kernel, stride, padding, dilation : tuple of int
        Two dimensions each.
    height, width, out_height, out_width : int
        H, W, H', W'.
    shuffle : int
        r of the pixel shuffle; 1 for none.
    """

    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    height: int
    width: int
    out_height: int
    out_width: int
    shuffle: int = 1

    @classmethod
    def of(
        cls, shape: Sequence[int], weight: Sequence[int], stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], shuffle: int,
    ) -> "Geometry":  # fmt: skip
        """Geometry of x [P, M, H, W, C] and weights [O, C, k, k]."""
        height, width, channels = shape[2:]
        sides = zip(shape[2:4], weight[2:], stride, padding, dilation, strict=True)
        out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides]
        return cls(
            channels, weight[0], _two(weight[2:]), _two(stride), _two(padding), _two(dilation),
            height, width, out[0], out[1], shuffle,
        )  # fmt: skip

    def constants(self) -> dict[str, Any]:
        """Give the constants of the compiler."""
        return {
            "C": self.channels, "O": self.outputs, "KH": self.kernel[0], "KW": self.kernel[1],
            "SH": self.stride[0], "SW": self.stride[1], "PH": self.padding[0],
            "PW": self.padding[1], "DH": self.dilation[0], "DW": self.dilation[1],
        }  # fmt: skip


def _two(numbers: Sequence[int]) -> tuple[int, int]:
    first, second = numbers
    return first, second
