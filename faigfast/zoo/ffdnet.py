"""FFDNet, a denoiser that takes the noise level, under KAIR's state-dict keys."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import check_fits, check_stack, conv3x3, extend, last_position, shape_of
from faigfast.zoo.noise_level import DEFAULT_LEVEL, NoiseLevel

FACTOR = 2  # by which the image is unshuffled before the convolutions


class FFDNet(NoiseLevel):
    """Denoising at half the resolution by a plain stack of convolutions.

    Images of odd sides are extended by their last row or column, as KAIR does; the output is cut.

    Parameters
    ----------
    channels : int
        Channels of the images.
    width : int
        Channels of the features.
    depth : int
        Convolutions, at least 2.
    noise_level : float
        Standard deviation of the noise for pixels in [0, 1]; the attribute may be changed.

    Raises
    ------
    TypeError
        If `noise_level` is no number.
    ValueError
        If a size is not positive, `depth` is less than 2, or `noise_level` negative or not finite.

    Notes
    -----
    Source: Zhang et al., IEEE TIP 2018; keys as in KAIR's FFDNet with ReLU. The published networks
    are 64 wide and 15 deep for grey images, 96 wide and 12 deep for colour.

    Examples
    --------
    >>> import torch
    >>> FFDNet(width=4, depth=3)(torch.rand(1, 1, 5, 7)).shape
    torch.Size([1, 1, 5, 7])
    """

    scale = 1

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        depth: int = 15,
        noise_level: float = DEFAULT_LEVEL,
    ) -> None:
        check_stack(channels, width, depth)
        super().__init__(noise_level)
        self.channels = channels
        layers: list[nn.Module] = [conv3x3(FACTOR**2 * channels + 1, width), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [conv3x3(width, width), nn.ReLU()]
        self.model = nn.Sequential(*layers, conv3x3(width, FACTOR**2 * channels))

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "FFDNet":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of KAIR's FFDNet.

        Returns
        -------
        FFDNet
            Its sizes follow from keys and shapes. `noise_level` is the default.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit FFDNet.
        """
        width, taken = shape_of("FFDNet", state, "model.0.weight")[:2]
        channels, depth = taken // FACTOR**2, last_position(state, "model.") // 2 + 1
        if channels < 1 or taken != FACTOR**2 * channels + 1:
            raise ValueError(
                f"FFDNet takes four times the image's channels and a noise level, found {taken} "
                "channels"
            )
        network = cls(channels, width, depth)
        check_fits(f"FFDNet of width {width} and depth {depth}", network, state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Restore x [N, C, H, W]."""
        height, width = x.shape[-2:]
        y = F.pixel_unshuffle(extend(x, FACTOR), FACTOR)
        y = F.pixel_shuffle(self.model(self.with_level(y)), FACTOR)
        return y[..., :height, :width]
