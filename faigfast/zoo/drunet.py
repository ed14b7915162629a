"""DRUNet, a residual U-Net that takes the noise level, under KAIR's state-dict keys."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from faigfast.zoo.blocks import check_fits, count, extend, shape_of
from faigfast.zoo.noise_level import DEFAULT_LEVEL, NoiseLevel

FACTOR = 8  # of which the sides are multiples inside


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + self.res(x)


class DRUNet(NoiseLevel):
    """Denoising by a U-Net of three halvings with residual blocks, without biases.

    Images may have any size: they are extended by their last rows and columns up to multiples of
    8, as in DPIR, and the output is cut.

    Parameters
    ----------
    channels : int
        Channels of the images.
    widths : sequence of int
        Channels of the features at full, half, quarter and eighth resolution.
    blocks : int
        Residual blocks at each resolution.
    noise_level : float
        Standard deviation of the noise for pixels in [0, 1]; the attribute may be changed.

    Raises
    ------
    TypeError
        If `noise_level` is no number.
    ValueError
        If a size is not positive, there are not four widths, or `noise_level` is negative or not
        finite.

    Notes
    -----
    Source: Zhang et al., IEEE TPAMI 2021 (DPIR); keys as in KAIR's UNetRes with ReLU, strided and
    transposed convolutions, as the published networks have them.

    Examples
    --------
    >>> import torch
    >>> DRUNet(widths=(4, 4, 4, 4), blocks=1)(torch.rand(1, 1, 5, 7)).shape
    torch.Size([1, 1, 5, 7])
    """

    scale = 1

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 4,
        noise_level: float = DEFAULT_LEVEL,
    ) -> None:
        if len(widths) != 4 or min(channels, blocks, *widths) < 1:
            raise ValueError(
                f"channels {channels}, blocks {blocks} and four widths {tuple(widths)} must be "
                "positive"
            )
        super().__init__(noise_level)
        self.channels = channels

        def residual(width: int) -> list[nn.Module]:
            return [ResidualBlock(width) for _ in range(blocks)]

        def halve(i: int) -> nn.Conv2d:
            return nn.Conv2d(widths[i], widths[i + 1], 2, stride=2, bias=False)

        def double(i: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2, bias=False)

        self.m_head = _conv(channels + 1, widths[0])
        self.m_down1 = nn.Sequential(*residual(widths[0]), halve(0))
        self.m_down2 = nn.Sequential(*residual(widths[1]), halve(1))
        self.m_down3 = nn.Sequential(*residual(widths[2]), halve(2))
        self.m_body = nn.Sequential(*residual(widths[3]))
        self.m_up3 = nn.Sequential(double(2), *residual(widths[2]))
        self.m_up2 = nn.Sequential(double(1), *residual(widths[1]))
        self.m_up1 = nn.Sequential(double(0), *residual(widths[0]))
        self.m_tail = _conv(widths[0], channels)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "DRUNet":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of KAIR's UNetRes.

        Returns
        -------
        DRUNet
            Its sizes follow from keys and shapes. `noise_level` is the default.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit DRUNet.
        """
        heads = ("m_head", "m_down2.0.res.0", "m_down3.0.res.0", "m_body.0.res.0")
        widths = [shape_of("DRUNet", state, f"{head}.weight")[0] for head in heads]
        channels = shape_of("DRUNet", state, "m_tail.weight")[0]
        blocks = count(state, "m_body.")
        network = cls(channels, widths, blocks)
        check_fits(f"DRUNet of widths {tuple(widths)} and {blocks} blocks", network, state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Restore x [N, C, H, W]."""
        height, width = x.shape[-2:]
        y = self.m_head(self.with_level(extend(x, FACTOR)))
        skipped = []
        for down in (self.m_down1, self.m_down2, self.m_down3):
            skipped.append(y)
            y = down(y)
        y = y + self.m_body(y)
        for up in (self.m_up3, self.m_up2, self.m_up1):
            y = up(y) + skipped.pop()
        return self.m_tail(y)[..., :height, :width]
