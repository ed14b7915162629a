"""SwinIR, attention within shifted windows, under BasicSR's state-dict keys."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import (
    RGB_MEAN,
    Upsample,
    check_fits,
    conv3x3,
    count,
    reflect,
    shape_of,
    shuffle_scale,
)

UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")
FEATURES = 64  # channels between `conv_before_upsample` and `conv_last`
HIDDEN = -100.0  # added to the score of two pixels that only a shift made neighbours


def _split(x: Tensor, window: int) -> Tensor:
    """Cut [N, H, W, C] into windows [N, B, T, C] of T = window² pixels, row by row."""
    height, width = x.shape[1] // window, x.shape[2] // window
    x = x.unflatten(2, (width, window)).unflatten(1, (height, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _join(x: Tensor, window: int, height: int) -> Tensor:
    """Put windows [N, B, T, C] back into [N, height, W, C]."""
    x = x.unflatten(1, (height // window, -1)).unflatten(3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _relative_positions(window: int) -> Tensor:
    """Give for every two pixels of a window [T, T] their row in the table of relative positions."""
    place = torch.arange(window)
    offset = place[:, None] - place + window - 1  # [window, window], from 0
    index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
    return index.flatten(2, 3).flatten(0, 1)


def _shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """Make the mask [B, T, T]: 0 for pixels that were neighbours before the shift, else -100."""

    def regions(side: int) -> Tensor:
        place = torch.arange(side)
        return (place >= side - window).int() + (place >= side - shift).int()

    labels = 3 * regions(height)[:, None] + regions(width)  # [H, W]
    labels = _split(labels[None, :, :, None], window).flatten(1)
    labels = labels.unflatten(1, (-1, window**2))[0]  # [B, T]
    return HIDDEN * (labels[:, None] != labels[:, :, None]).float()


class WindowAttention(nn.Module):
    """Multi-head attention within windows, biased by the relative position."""

    relative_position_index: Tensor

    def __init__(self, width: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        bias_table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(bias_table, std=0.02)
        )
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map windows [N, B, T, C] to the same shape; the mask [B, T, T] is added to the scores."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [N, B, T, 3, heads, C / heads]
        q, k, v = qkv.movedim(-3, 0).transpose(-3, -2)  # [N, B, heads, T, C / heads] each
        bias = self.relative_position_bias_table[self.relative_position_index]  # [T, T, heads]
        scores = (q * q.shape[-1] ** -0.5) @ k.mT + bias.permute(2, 0, 1)
        if mask is not None:
            scores = scores + mask[:, None]
        return self.proj((scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2))


class SwinBlock(nn.Module):
    """Window attention and a perceptron, each behind a layer norm and beside a skip."""

    attn_mask: Tensor | None

    def __init__(
        self, width: int, size: tuple[int, int], heads: int, window: int, shift: int, hidden: int
    ) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window, heads)
        self.norm2 = nn.LayerNorm(width)
        fc1, fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))
        self.register_buffer("attn_mask", _shift_mask(*size, window, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, H, W, C], whose sides are multiples of the window, to the same shape."""
        height, width = x.shape[1:3]
        y, mask = self.norm1(x), None
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
            mask = self.attn_mask
            if (height, width) != self.size:
                mask = _shift_mask(height, width, self.window, self.shift).to(x)
        y = _join(self.attn(_split(y, self.window), mask), self.window, height)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


def _closing_conv(width: int, residual: str) -> nn.Module:
    """Make the convolution before a skip: one, or three through a quarter of the channels."""
    if residual == "1conv":
        return conv3x3(width, width)
    narrow = width // 4
    return nn.Sequential(
        conv3x3(width, narrow),
        nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        conv3x3(narrow, width),
    )


class SwinGroup(nn.Module):
    """x + conv(blocks(x)) of Swin blocks, every second one shifted."""

    def __init__(self, blocks: Sequence[SwinBlock], conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, H, W, C] to the same shape."""
        return x + self.conv(self.residual_group(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """Restoration by transformer blocks whose attention stays within shifted windows.

    Images may have any size: they are reflected at the lower and right edges up to full windows,
    and the output is cut to the image's own pixels.

    Parameters
    ----------
    in_channels : int
        Channels of the images, before and after.
    width : int
        Channels of the features; a multiple of every entry of `heads`.
    depths : sequence of int
        Blocks of every residual group.
    heads : sequence of int
        Attention heads of every residual group's blocks.
    scale : int
        Enlargement: 3 or a power of two for "pixelshuffle", any for "pixelshuffledirect", 4 for
        "nearest+conv" and 1 for "".
    window : int
        Side of a window in pixels.
    mlp_ratio : float
        Hidden channels of the perceptrons as a multiple of `width`.
    upsampler : {"pixelshuffle", "pixelshuffledirect", "nearest+conv", ""}
        The enlargement: of the classical, lightweight and real-world networks, and none.
    residual : {"1conv", "3conv"}
        Convolutions before each skip.
    image_size : int or (int, int)
        Height and width of the images whose attention masks the state dict holds, two windows or
        more each; the masks of other sizes are computed.
    img_range : float
        Factor of the images inside the network.

    Raises
    ------
    ValueError
        If a size is not positive or they do not go together as above.

    Notes
    -----
    Source: Liang et al., ICCVW 2021; keys as in BasicSR's SwinIR, without its options
    that no published network uses and without stochastic depth, which acts in training only. The
    default sizes match the published lightweight network.

    Examples
    --------
    >>> net = SwinIR(width=8, depths=(2, 2), heads=(2, 2), window=4, scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    computed = ("attn_mask", "relative_position_index")
    mean: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 60,
        depths: Sequence[int] = (6, 6, 6, 6),
        heads: Sequence[int] = (6, 6, 6, 6),
        scale: int = 4,
        window: int = 8,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffledirect",
        residual: str = "1conv",
        image_size: int | tuple[int, int] = 64,
        img_range: float = 1.0,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check(in_channels, width, depths, heads, scale, window, upsampler, residual)
        if min(size) < 2 * window or any(side % window for side in size):
            raise ValueError(f"image_size {size} must be two or more windows of {window} each way")
        hidden = int(width * mlp_ratio)
        if hidden < 1 or not img_range > 0:
            raise ValueError(f"mlp_ratio {mlp_ratio} and img_range {img_range} must be positive")
        self.scale, self.window, self.channels = scale, window, in_channels
        self.upsampler, self.img_range = upsampler, img_range
        mean = torch.tensor(RGB_MEAN) if in_channels == 3 else torch.zeros(1)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)

        self.conv_first = conv3x3(in_channels, width)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(width)))
        groups = []
        for depth, head_count in zip(depths, heads, strict=True):
            shifts = [window // 2 * (i % 2) for i in range(depth)]
            blocks = [SwinBlock(width, size, head_count, window, shift, hidden) for shift in shifts]
            groups.append(SwinGroup(blocks, _closing_conv(width, residual)))
        self.layers = nn.Sequential(*groups)
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = _closing_conv(width, residual)
        if upsampler in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(conv3x3(width, FEATURES), nn.LeakyReLU())
        if upsampler == "pixelshuffle":
            self.upsample: nn.Module = Upsample(scale, FEATURES)
        elif upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(
                conv3x3(width, scale**2 * in_channels), nn.PixelShuffle(scale)
            )
        elif upsampler == "nearest+conv":
            self.conv_up1 = conv3x3(FEATURES, FEATURES)
            self.conv_up2 = conv3x3(FEATURES, FEATURES)
            self.conv_hr = conv3x3(FEATURES, FEATURES)
        if upsampler != "pixelshuffledirect":
            self.conv_last = conv3x3(FEATURES if upsampler else width, in_channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "SwinIR":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of BasicSR's SwinIR.

        Returns
        -------
        SwinIR
            Its sizes follow from keys and shapes, `image_size` from the masks, without them two
            windows. Masks and positions are computed, never compared. Nothing gives `img_range`:
            it is 255 for the published networks against JPEG artefacts (window 7, no upsampler,
            masks of images of 126 pixels or none) and 1 for all others.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit SwinIR.
        """
        width, in_channels = shape_of("SwinIR", state, "conv_first.weight")[:2]
        first_blocks = [
            f"layers.{i}.residual_group.blocks.0." for i in range(max(1, count(state, "layers.")))
        ]
        depths = [count(state, first[: -len("0.")]) for first in first_blocks]
        bias_table_shapes = [
            shape_of("SwinIR", state, f"{first}attn.relative_position_bias_table", 2)
            for first in first_blocks
        ]
        window = (math.isqrt(bias_table_shapes[0][0]) + 1) // 2
        hidden = shape_of("SwinIR", state, f"{first_blocks[0]}mlp.fc1.weight", 2)[0]
        stored_size = _masked_size(state, window)
        size = stored_size or (2 * window, 2 * window)
        scale, upsampler = 1, ""
        if "conv_up1.weight" in state:
            scale, upsampler = 4, "nearest+conv"
        elif "conv_before_upsample.0.weight" in state:
            scale, upsampler = shuffle_scale(state), "pixelshuffle"
        elif "upsample.0.weight" in state:
            grown = shape_of("SwinIR", state, "upsample.0.weight")[0]
            scale, upsampler = math.isqrt(grown // max(1, in_channels)), "pixelshuffledirect"
        is_jpeg = (window, upsampler) == (7, "") and stored_size in (None, (126, 126))
        network = cls(
            in_channels,
            width,
            depths,
            [shape[1] for shape in bias_table_shapes],
            scale,
            window,
            (hidden + 0.5) / max(1, width),  # no rounding can bring it below `hidden`
            upsampler,
            "3conv" if "conv_after_body.0.weight" in state else "1conv",
            size,
            255.0 if is_jpeg else 1.0,
        )
        check_fits(f"SwinIR of width {width} and ×{scale}", network, state, cls.computed)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Restore x [N, C, H, W] to [N, C, scale·H, scale·W]."""
        height, width = x.shape[-2:]
        mean = self.mean.to(x)
        x = (reflect(x, self.window) - mean) * self.img_range
        first = self.conv_first(x)
        y = self.norm(self.layers(self.patch_embed(first.permute(0, 2, 3, 1))))  # [N, H, W, C]
        y = self.conv_after_body(y.permute(0, 3, 1, 2)) + first
        y = self._reconstruct(y)
        if not self.upsampler:
            y = x + y
        y = y / self.img_range + mean
        return y[..., : height * self.scale, : width * self.scale]

    def _reconstruct(self, y: Tensor) -> Tensor:
        """Make an image [N, C, scale·H, scale·W] of features [N, width, H, W]."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(y)
        if self.upsampler:
            y = self.conv_before_upsample(y)
        if self.upsampler == "pixelshuffle":
            y = self.upsample(y)
        elif self.upsampler == "nearest+conv":
            for conv in (self.conv_up1, self.conv_up2):
                y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
            y = F.leaky_relu(self.conv_hr(y), 0.2)
        return self.conv_last(y)


def _masked_size(state: Mapping[str, Tensor], window: int) -> tuple[int, int] | None:
    """Read the image size off stored masks; None where there are none that give one."""
    key = next((key for key in state if key.endswith(".attn_mask")), None)
    if key is None or state[key].shape[1:] != (window**2,) * 2:
        return None
    windows = len(state[key])
    # In the first row of windows only the last one holds pixels from both ends of the image.
    masked = state[key].flatten(1).any(1).nonzero()
    columns = int(masked[0]) + 1 if len(masked) else 1
    rows = windows // columns
    valid = min(rows, columns) > 1 and rows * columns == windows
    return (rows * window, columns * window) if valid else None


def _check(
    in_channels: int,
    width: int,
    depths: Sequence[int],
    heads: Sequence[int],
    scale: int,
    window: int,
    upsampler: str,
    residual: str,
) -> None:
    """Refuse sizes and options that do not go together."""
    if upsampler not in UPSAMPLERS or residual not in ("1conv", "3conv"):
        raise ValueError(
            f"upsampler {upsampler!r} must be one of {', '.join(map(repr, UPSAMPLERS))} and "
            f"residual {residual!r} '1conv' or '3conv'"
        )
    if not depths or len(depths) != len(heads) or min(*depths, *heads) < 1:
        raise ValueError(
            f"depths {tuple(depths)} and heads {tuple(heads)} must be positive and as many"
        )
    if min(in_channels, width, scale, window) < 1 or any(
        width % head_count for head_count in heads
    ):
        raise ValueError(
            f"in_channels {in_channels}, width {width}, scale {scale} and window {window} must be "
            f"positive and the width a multiple of every one of heads {tuple(heads)}"
        )
    if residual == "3conv" and width < 4:
        raise ValueError(f"width is {width}; '3conv' takes a quarter of it, at least 1")
    expected_scale = {"nearest+conv": 4, "": 1}.get(upsampler, scale)
    if scale != expected_scale:
        raise ValueError(
            f"scale is {scale}; SwinIR with upsampler {upsampler!r} has {expected_scale}"
        )
