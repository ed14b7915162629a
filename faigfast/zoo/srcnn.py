"""The plain nine-layer network of the FAIG paper, under its authors' state-dict keys."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from faigfast.zoo.blocks import check_fits, shuffle_factors

NEGATIVE_SLOPE = 0.1


class SRCNNStyle(nn.Module):
    """Super-resolution by a plain stack of 3×3 convolutions without any skip.

    Parameters
    ----------
    widths : sequence of int
        Output channels of the convolutions before the enlargement.
    scale : int
        Enlargement: 3 or a power of two, one pixel shuffle per factor.
    in_channels, out_channels : int
        Channels of the images.

    Raises
    ------
    ValueError
        If `scale` is another or a size is not positive.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021 (widths 64, 128 × 5; nine layers at ×2); the keys are
    `features.N.weight` and `features.N.bias`, as in the authors' checkpoints.

    Examples
    --------
    >>> net = SRCNNStyle(widths=(4, 6), scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 128, 128, 128, 128),
        scale: int = 2,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, in_channels, out_channels) < 1:
            raise ValueError(
                f"widths {tuple(widths)}, in_channels {in_channels} and out_channels "
                f"{out_channels} must be positive, with at least one width"
            )
        self.scale = scale
        layers: list[nn.Module] = []
        channels = in_channels
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
            channels = width
        for factor in shuffle_factors(scale):
            layers += [
                nn.Conv2d(channels, factor**2 * channels, 3, padding=1),
                nn.PixelShuffle(factor),
                nn.LeakyReLU(NEGATIVE_SLOPE),
            ]
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1)]
        self.features = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "SRCNNStyle":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the authors' keys.

        Returns
        -------
        SRCNNStyle
            Its widths, channels and scale follow from keys and shapes.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit SRCNNStyle.
        """
        shapes: dict[int, torch.Size] = {}  # position in `features` -> shape of the weight
        for key, tensor in state.items():
            match = re.fullmatch(r"features\.(\d+)\.(weight|bias)", key)
            if match is None:
                raise ValueError(f"SRCNNStyle has no {key!r}, only 'features.N.weight' and '.bias'")
            if match[2] == "weight":
                if tensor.ndim != 4:
                    raise ValueError(f"SRCNNStyle needs a 4-D {key!r}, found {[*tensor.shape]}")
                shapes[int(match[1])] = tensor.shape
        positions = sorted(shapes)
        if len(positions) < 3:
            raise ValueError(f"SRCNNStyle needs three convolutions, found {len(positions)}")
        widths, scale = [], 1
        for here, after in pairwise(positions[:-1]):
            if after - here == 3:  # a pixel shuffle is between them
                scale *= math.isqrt(shapes[here][0] // max(shapes[here][1], 1))
            else:
                widths.append(shapes[here][0])
        net = cls(widths, scale, shapes[positions[0]][1], shapes[positions[-1]][0])
        check_fits(f"SRCNNStyle of widths {widths} and ×{scale}", net, state)
        return net

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, out_channels, scale·H, scale·W]."""
        return self.features(x)
