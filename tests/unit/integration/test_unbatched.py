"""Images without a batch axis."""

import pytest
import torch
from cases.networks import kinked, pair
from torch import nn

import faigfast


def of(*shape):
    return torch.rand(shape, dtype=torch.float64)


@pytest.mark.parametrize("channels", [3, 1])
def test_a_single_image_gets_a_sentence(channels):
    x = of(channels, 6, 5)
    words = rf"x is \[{channels}, 6, 5\], of 3 axes; .* of 4 axes .*single image is x\[None\]"
    for batch in ((x, x), [(x, x)], {"lq": x, "gt": x}):
        with pytest.raises(ValueError, match=words):
            faigfast.attribute(*pair(kinked), batch, steps=1)


def test_the_degradation_is_named():
    x = of(3, 6, 5)
    with pytest.raises(ValueError, match=r"x of 'blur' is \[3, 6, 5\]"):
        faigfast.attribute(*pair(kinked), {"lq": {"blur": x}, "gt": x}, steps=1)


def test_different_first_axes_name_the_number_of_images():
    with pytest.raises(ValueError, match=r"\(6, 12\)}; expected one number, the N of \[N, C"):
        faigfast.attribute(*pair(kinked), (of(6, 5), of(12, 10)), steps=1)


class Spectrum(nn.Module):
    """Takes [N, H, W] and adds the axis of channels itself."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.convolution(x.unsqueeze(1)).squeeze(1)


def test_a_network_that_adds_axes_is_taken():
    x = of(2, 6, 5)
    assert faigfast.attribute(*pair(Spectrum), (x, x), steps=1).images == 2
