"""NoiseLevel: the noise level that a denoiser takes beside its image, as an attribute."""

import math

import torch
from torch import Tensor, nn

DEFAULT_LEVEL = 15 / 255  # the first of the levels that DRUNet and FFDNet were published for


class NoiseLevel(nn.Module):
    """Base of networks that take a map of the noise's standard deviation as another channel.

    Attributes
    ----------
    noise_level : float
        Standard deviation of the noise for pixels in [0, 1], the same for every pixel. It is no
        part of the state dict; set it on both networks of a pair.
    """

    def __init__(self, noise_level: float) -> None:
        super().__init__()
        self.noise_level = noise_level

    @property
    def noise_level(self) -> float:
        """Standard deviation of the noise for pixels in [0, 1]."""
        return self._noise_level

    @noise_level.setter
    def noise_level(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"noise_level is a {type(value).__name__}; expected a number")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"noise_level is {value}; expected a finite number of at least 0")
        self._noise_level = float(value)

    def with_level(self, x: Tensor) -> Tensor:
        """Append the noise level to x [N, C, H, W] as one more channel [N, C + 1, H, W]."""
        level = x.new_full((x.shape[0], 1, *x.shape[2:]), self._noise_level)
        return torch.cat((x, level), 1)
