"""Range of ground truths: images of 0 to 255 where [0, 1] is expected."""

from torch import Tensor

WHITE = 1 + 0.5 / 255  # values above it do not round to white in 8 bit
RANGE_NOTE = (
    "gt: values above 1, as in images of 0 to 255: losses and scores are of this range, and "
    "metrics expect [0, 1]; divide images by 255 if the networks take [0, 1]"
)


def exceeds_white(gt: Tensor) -> bool:
    """Whether a ground truth has a value above 1 that 8 bit cannot hold."""
    return bool((gt > WHITE).any())


def resembles_bytes(gt: Tensor) -> bool:
    """Whether a ground truth looks like an image of 0 to 255: above 1, and never negative."""
    return exceeds_white(gt) and not bool((gt < 0).any())
