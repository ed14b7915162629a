"""DnCNN, which predicts the noise of an image, under KAIR's state-dict keys."""

from collections.abc import Mapping

from torch import Tensor, nn

from faigfast.zoo.blocks import check_fits, check_stack, conv3x3, last_position, shape_of

BATCH_NORM_EPS = 1e-4


class DnCNN(nn.Module):
    """Denoising by a plain stack of convolutions whose output is subtracted from the image.

    Parameters
    ----------
    channels : int
        Channels of the images.
    width : int
        Channels of the features.
    depth : int
        Convolutions, at least 2.
    batch_norm : bool
        Batch norms after all convolutions but the first and the last, as before they were merged
        into the convolutions of the published files.

    Raises
    ------
    ValueError
        If a size is not positive or `depth` is less than 2.

    Notes
    -----
    Source: Zhang et al., IEEE TIP 2017; keys as in KAIR's DnCNN with ReLU. The published networks
    for one noise level have a depth of 17, the blind ones of 20.

    Examples
    --------
    >>> import torch
    >>> DnCNN(width=4, depth=3)(torch.rand(1, 1, 5, 7)).shape
    torch.Size([1, 1, 5, 7])
    """

    computed = ("num_batches_tracked",)  # counted in training alone; old files lack it
    scale = 1

    def __init__(
        self, channels: int = 1, width: int = 64, depth: int = 17, batch_norm: bool = False
    ) -> None:
        super().__init__()
        check_stack(channels, width, depth)
        self.channels = channels
        layers: list[nn.Module] = [conv3x3(channels, width), nn.ReLU()]
        for _ in range(depth - 2):
            layers.append(conv3x3(width, width))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width, BATCH_NORM_EPS, momentum=0.9))
            layers.append(nn.ReLU())
        self.model = nn.Sequential(*layers, conv3x3(width, channels))

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "DnCNN":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of KAIR's DnCNN.

        Returns
        -------
        DnCNN
            Its sizes follow from keys and shapes.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit DnCNN.
        """
        width, channels = shape_of("DnCNN", state, "model.0.weight")[:2]
        last = last_position(state, "model.")
        out_channels = shape_of("DnCNN", state, f"model.{last}.weight")[0]
        if out_channels != channels:
            raise ValueError(
                f"DnCNN makes as many channels as it takes, {channels}, found {out_channels}"
            )
        batch_norm = "model.3.weight" in state
        depth = (last + 4) // 3 if batch_norm else last // 2 + 1
        network = cls(channels, width, depth, batch_norm)
        check_fits(f"DnCNN of width {width} and depth {depth}", network, state, cls.computed)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Restore x [N, C, H, W]."""
        return x - self.model(x)
