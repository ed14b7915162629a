import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from faigfast.data.degradations import round_to_8_bit
from faigfast.findings.metrics import luma, output_difference, psnr


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    gt = round_to_8_bit(torch.rand(3, 3, 11, 14, generator=generator))
    return gt + 0.1 * torch.randn(gt.shape, generator=generator), gt


@pytest.mark.parametrize("border", [0, 1, 4])
def test_rgb_psnr_is_skimages(pair, border):
    output, gt = pair
    inner = (slice(None), slice(border, 11 - border), slice(border, 14 - border))
    expected = [
        peak_signal_noise_ratio(b[inner].double().numpy(), a[inner].double().numpy(), data_range=1)
        for a, b in zip(round_to_8_bit(output.double()), gt, strict=True)
    ]
    torch.testing.assert_close(psnr(output, gt, border=border), torch.tensor(expected))


def test_luma_is_skimages(pair):
    expected = rgb2ycbcr(pair[1].double().permute(0, 2, 3, 1).numpy())[..., 0] / 255
    torch.testing.assert_close(luma(pair[1].double())[:, 0], torch.from_numpy(expected))


def test_y_psnr_sees_luma_alone(pair):
    _, gt = pair
    chroma = torch.tensor([128.553, -65.481, 0.0]).view(1, 3, 1, 1) / 2000  # Y stays
    gt = gt * 0.5 + 0.25
    changed = gt + chroma
    assert (psnr(changed, gt, channel="y") > psnr(changed, gt) + 10).all()


def test_output_is_rounded_and_equal_images_are_infinitely_good(pair):
    _, gt = pair
    gt = round_to_8_bit(gt.double())
    assert psnr(gt + 0.001, gt).isinf().all()


def test_gray_images_are_their_own_luma(pair):
    output, gt = (x[:, :1] for x in pair)
    assert torch.equal(psnr(output, gt, channel="y"), psnr(output, gt))
    triple = [x.expand(-1, 3, -1, -1) for x in (output, gt)]
    torch.testing.assert_close(output_difference(output, gt), output_difference(*triple))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"border": 6}, "border 6 leaves nothing"),
        ({"border": -1}, "border -1"),
        ({"channel": "Y"}, "channel is 'Y'"),
    ],
)
def test_refused(pair, change, words):
    with pytest.raises(ValueError, match=words):
        psnr(*pair, **change)
    with pytest.raises(ValueError, match="channel is 'y' of images \\[3, 2,"):
        psnr(pair[0][:, :2], pair[1][:, :2], channel="y")
    with pytest.raises(ValueError, match="output is"):
        psnr(pair[0][:1], pair[1])
