"""Memory of images that gain channels."""

from torch import Tensor

from faigfast.backend.cpu.allocator import empty


class ChannelBuffer:
    """Memory [P, M, H, W, C] for images that gain channels one convolution after the other.

    A dense block concatenates the result of every convolution to all earlier ones: only new
    channels are written.
    """

    def __init__(self, *shape: int) -> None:
        self._pixels = empty(*shape)
        self.used = 0

    def fits(self, width: int, more: int) -> bool:
        """Whether exactly `width` channels are in use, with space for `more`."""
        return self.used == width and width + more <= self._pixels.shape[-1]

    def put(self, part: Tensor) -> None:
        """Append channels [P, M, H, W, C]."""
        self._pixels.narrow(-1, self.used, part.shape[-1]).copy_(part)
        self.used += part.shape[-1]

    def pixels(self) -> Tensor:
        """All channels in use."""
        return self._pixels.narrow(-1, 0, self.used)
