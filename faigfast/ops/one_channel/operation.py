"""A convolution where one input channel differs from an image whose result is known."""

import torch
from torch import Tensor

from faigfast.ops.activation import activate
from faigfast.ops.registry import operation

aten = torch.ops.aten


@operation
def one_channel(
    change: Tensor,
    w: Tensor,
    known: Tensor,
    residual: Tensor | None,
    slopes: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    activation: str,
    slope: float,
    scale: float,
    shuffle: int,
) -> Tensor:
    """Compute y = scale · act(known + shuffled conv(change, w)) + residual.

    Parameters
    ----------
    change : Tensor
        [K, 1, *spatial], change of the input channel in every sample.
    w : Tensor
        [O, 1, *k] ([1, O, *k] transposed), the weights of that channel.
    known : Tensor
        [1, O, *spatial], the known result before the activation; [1, O/r², r·H, r·W] shuffled.
    residual : Tensor, optional
        As `known`, added last.
    slopes : Tensor, optional
        [O] or [1], slope of prelu.
    stride, padding, dilation, transposed, output_padding
        As in `torch.convolution`.
    activation, slope, scale, shuffle
        As in `faigfast.ops.conv.operation.conv`.

    Returns
    -------
    Tensor
        [K, O, *spatial]; [K, O/r², r·H, r·W] shuffled.
    """
    z = aten.convolution(change, w, None, stride, padding, dilation, transposed, output_padding, 1)
    if shuffle > 1:
        z = aten.pixel_shuffle(z, shuffle)
    y = activate(z + known, activation, slope if slopes is None else slopes)
    if scale != 1:
        y = y * scale
    return y if residual is None else y + residual
