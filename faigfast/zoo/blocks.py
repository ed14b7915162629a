"""Parts that networks of the zoo share: layers, and reading sizes off a state dict."""

import math
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's photographs in [0, 1]
MAX_DESCRIPTION = 200  # characters in a message
MAX_MEMBERS = 1_000  # of a list of modules in a checkpoint
INITIAL_GAIN = 0.1  # a residual net starts near the identity


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 3×3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def residual_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 3×3 convolution that starts at a tenth of Kaiming's normal weights, without bias."""
    conv = conv3x3(in_channels, out_channels)
    nn.init.kaiming_normal_(conv.weight)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.mul_(INITIAL_GAIN)
        conv.bias.zero_()
    return conv


def check_stack(channels: int, width: int, depth: int) -> None:
    """Refuse sizes that no stack of convolutions has, the first and the last counted."""
    if min(channels, width) < 1 or depth < 2:
        raise ValueError(
            f"channels {channels} and width {width} must be positive and depth {depth} at least 2"
        )


def shuffle_factors(scale: int) -> list[int]:
    """Split a scale into pixel-shuffle factors: 4 into [2, 2], 3 into [3], 1 into []."""
    if scale == 3:
        return [3]
    if isinstance(scale, int) and scale > 0 and scale & (scale - 1) == 0:
        return [2] * (scale.bit_length() - 1)
    raise ValueError(f"scale is {scale!r}; pixel shuffles enlarge by 3 or a power of two")


class Upsample(nn.Sequential):
    """Enlarge features [N, width, H, W] by a convolution and a pixel shuffle per factor."""

    def __init__(self, scale: int, width: int) -> None:
        layers: list[nn.Module] = []
        for factor in shuffle_factors(scale):
            layers += [conv3x3(width, factor**2 * width), nn.PixelShuffle(factor)]
        super().__init__(*layers)


def shuffle_scale(state: Mapping[str, Tensor]) -> int:
    """Read the scale of an `Upsample` named "upsample" off the shapes; 1 where there is none."""
    weights = (v for k, v in state.items() if re.fullmatch(r"upsample\.\d+\.weight", k))
    return math.prod(math.isqrt(w.shape[0] // max(w.shape[1], 1)) for w in weights if w.ndim == 4)


def shape_of(family: str, state: Mapping[str, Tensor], key: str, ndim: int = 4) -> torch.Size:
    """Give the shape of a tensor that every network of a family has.

    Raises
    ------
    ValueError
        If it is missing or has another number of dimensions.
    """
    if key not in state or state[key].ndim != ndim:
        raise ValueError(f"{family} needs a {ndim}-D tensor {key!r}")
    return state[key].shape


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the members of a list of modules, such as "body.".

    Raises
    ------
    ValueError
        If they are too many to build.
    """
    start = len(prefix)
    members = {key[start:].split(".", 1)[0] for key in state if key.startswith(prefix)}
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{prefix!r} has {len(members)} members; expected at most {MAX_MEMBERS}")
    return len(members)


def extend(x: Tensor, factor: int) -> Tensor:
    """Repeat the last row and column of x [N, C, H, W] up to multiples of a factor."""
    for dim in (2, 3):
        side = x.shape[dim]
        if side % factor:
            place = torch.arange(side + -side % factor, device=x.device).clamp(max=side - 1)
            x = x.index_select(dim, place)
    return x


def reflect(x: Tensor, window: int) -> Tensor:
    """Reflect [N, C, H, W] at its lower and right edges up to whole windows."""
    for dim in (2, 3):
        side = x.shape[dim]
        if side % window:
            # Unlike torch's own padding, this reflects again where the image is too small.
            place = torch.arange(side + -side % window, device=x.device) % max(2 * side - 2, 1)
            x = x.index_select(dim, torch.minimum(place, 2 * side - 2 - place))
    return x


def last_position(state: Mapping[str, Tensor], prefix: str) -> int:
    """Give the highest number of a member of a list of modules, such as "model."; 0 without any."""
    start = len(prefix)
    heads = {key[start:].split(".", 1)[0] for key in state if key.startswith(prefix)}
    return max((int(head) for head in heads if re.fullmatch(r"[0-9]{1,4}", head)), default=0)


def is_computed(key: str, computed: Collection[str]) -> bool:
    """Whether a tensor is one that its network computes, such as a mask, by the end of its name."""
    return key.rpartition(".")[2] in computed


def check_fits(
    description: str,
    network: nn.Module,
    state: Mapping[str, Tensor],
    computed: Collection[str] = (),
) -> None:
    """Refuse a state dict of another network.

    Parameters
    ----------
    description : str
        Beginning of the message.
    network : nn.Module
        The network of the sizes that were read off the state dict.
    state : mapping of str to Tensor
        The state dict.
    computed : collection of str
        Ends of the names of tensors that the network computes; they are not compared.

    Raises
    ------
    ValueError
        Naming the first tensor that is missing, unknown or of another shape.
    """
    expected = network.state_dict()
    if len(description) > MAX_DESCRIPTION:
        description = f"{description[:MAX_DESCRIPTION]}..."
    for key in [*expected, *state]:
        if is_computed(key, computed):
            continue
        if key not in state or key not in expected:
            raise ValueError(
                f"{description} {'does not have' if key in state else 'lacks'} {key!r}"
            )
        if state[key].shape != expected[key].shape:
            raise ValueError(
                f"{description} needs {key!r} of shape {[*expected[key].shape]}, "
                f"found {[*state[key].shape]}"
            )
