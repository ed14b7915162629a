import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import block_reduce

from faigfast.data.degradations import Jpeg, Resize, Webp
from faigfast.data.degradations.resampling import resize

GENERATOR = torch.Generator()


def image(*shape, seed=0):
    """Smooth, so that codecs have something to keep."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise[None], 3, 1, 1)[0]


def through_pillow(x, name, quality):
    levels = np.clip(np.rint(x.numpy().astype(np.float64) * 255), 0, 255).astype(np.uint8)
    pixels = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, quality=quality)
    decoded = np.asarray(Image.open(file).convert("L" if len(levels) == 1 else "RGB"))
    return (decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1)) / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("step", "name"), [(Jpeg, "JPEG"), (Webp, "WEBP")])
@pytest.mark.parametrize("quality", [1, 40, 95])
def test_codecs_are_pillows(channels, step, name, quality):
    x = image(channels, 25, 34).double()
    coded = step(quality)(x, GENERATOR)
    assert coded.dtype == x.dtype and coded.shape == x.shape and coded.is_contiguous()
    np.testing.assert_allclose(coded.numpy(), through_pillow(x, name, quality), atol=1e-15)
    assert not torch.equal(coded, x)


def test_codecs_clip_and_lose_less_at_higher_quality():
    x = image(3, 32, 32) * 1.5 - 0.2
    errors = [(Jpeg(q)(x, GENERATOR) - x.clamp(0, 1)).abs().mean() for q in (5, 30, 60, 95)]
    assert errors == sorted(errors, reverse=True)
    flat = torch.full((3, 16, 16), 2.0)
    assert torch.equal(Jpeg(90)(flat, GENERATOR), torch.ones(3, 16, 16))


def test_codecs_refuse_channels_and_sizes(monkeypatch):
    with pytest.raises(ValueError, match=r"JPEG takes images of 1 or 3 channels; got \[2, 8, 8\]"):
        Jpeg(40)(torch.zeros(2, 8, 8), GENERATOR)
    with pytest.raises(ValueError, match=r"WEBP does not take an image \[1, 1, 20000\]"):
        Webp(40)(torch.zeros(1, 1, 20000), GENERATOR)
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with pytest.raises(ImportError, match=r"without WebP: pip install .*faigfast\[data\]"):
        Webp(40)(torch.zeros(3, 8, 8), GENERATOR)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"JPEG needs Pillow: pip install 'faigfast\[data\]'"):
        Jpeg(40)(torch.zeros(3, 8, 8), GENERATOR)


RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def pillow_resized(channel, size, method):
    return Image.fromarray(channel).resize((size[1], size[0]), method)


@pytest.mark.parametrize("method", list(RESAMPLING))
@pytest.mark.parametrize("factor", [1, 1.7, 2, 3.5])
def test_resizing_down_and_up_is_pillows(method, factor):
    x = image(3, 26, 35)
    small = (max(1, round(26 / factor)), max(1, round(35 / factor)))
    expected = []
    for channel in x.numpy():
        down = pillow_resized(channel, small, RESAMPLING[method])
        expected.append(np.asarray(pillow_resized(np.asarray(down), (26, 35), RESAMPLING[method])))
    y = Resize(factor, method)(x, GENERATOR)
    np.testing.assert_allclose(y.numpy(), np.stack(expected), atol=3e-6)


def test_nearest_is_pillows():
    """Where no new centre lies on an edge of two pixels: there Pillow and torch choose either."""
    x = image(1, 27, 33)
    down = pillow_resized(x[0].numpy(), (9, 11), Image.Resampling.NEAREST)
    up = np.asarray(pillow_resized(np.asarray(down), (27, 33), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(Resize(3, "nearest")(x, GENERATOR)[0].numpy(), up)


def test_area_is_the_mean_of_blocks():
    x = image(2, 12, 18)
    expected = block_reduce(x.numpy(), (1, 3, 3), np.mean)
    small = resize(x, (4, 6), "area")
    np.testing.assert_allclose(small.numpy(), expected, atol=1e-6)
    up = Resize(3, "area")(x, GENERATOR)
    np.testing.assert_allclose(up.numpy(), expected.repeat(3, 1).repeat(3, 2), atol=1e-6)


def test_a_large_factor_leaves_one_pixel():
    x = image(1, 8, 9)
    assert torch.allclose(Resize(1000.0, "area")(x, GENERATOR), x.mean().expand(1, 8, 9))
