"""Range of images: 0 to 255 where [0, 1] is expected."""

from torch import Tensor

WHITE = 1 + 0.5 / 255  # values above it do not round to white in 8 bit
RANGE_NOTE = (
    "gt: values above 1, as in images of 0 to 255: most networks take [0, 1], and scores outside "
    "their range mean nothing; divide x and gt by 255, unless the networks were trained on 0 to 255"
)

BRIGHT = 10  # above every value of an image in [0, 1] with noise that was not clipped
X_RANGE_NOTE = (
    f"x: values above {BRIGHT}, as in images of 0 to 255, while gt is within [0, 1]; divide x by "
    "255, unless the networks do that themselves"
)


def exceeds_white(gt: Tensor) -> bool:
    """Whether a ground truth has a value above 1 that 8 bit cannot hold."""
    return bool((gt > WHITE).any())


def resembles_bytes(gt: Tensor) -> bool:
    """Whether a ground truth looks like an image of 0 to 255: above 1, and never negative."""
    return exceeds_white(gt) and not bool((gt < 0).any())


def resembles_bytes_beside(x: Tensor, gt: Tensor) -> bool:
    """Whether x looks like an image of 0 to 255 and its ground truth like one of [0, 1]."""
    return bool((x > BRIGHT).any() and (x >= 0).all()) and not exceeds_white(gt)
