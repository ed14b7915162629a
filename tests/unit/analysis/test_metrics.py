import pytest
import torch
from cases.networks import pair as networks
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

import faigfast
from faigfast.analysis.evaluation import Crops
from faigfast.analysis.masking import mask
from faigfast.analysis.metrics import luma, output_difference, psnr, ssim
from faigfast.data.degradations import round_to_8_bit


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
    chroma = torch.tensor([128.553, -65.481, 0.0]).view(1, 3, 1, 1) / 2000  # leaves Y unchanged
    gt = gt * 0.5 + 0.25
    changed = gt + chroma
    assert (psnr(changed, gt, channel="y") > psnr(changed, gt) + 10).all()


def test_output_is_rounded_and_equal_images_are_infinitely_good(pair):
    _, gt = pair
    gt = round_to_8_bit(gt.double())
    assert psnr(gt + 0.001, gt).isinf().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_equal_images_are_infinitely_good_in_every_type(dtype, channel):
    image = torch.rand(4, 3, 13, 13, generator=torch.Generator().manual_seed(0)).to(dtype)
    for gt in (
        image,
        image.double(),
        round_to_8_bit(image.float()),
        round_to_8_bit(image.double()),
    ):
        assert psnr(image, gt, channel=channel).isinf().all()
        torch.testing.assert_close(ssim(image, gt), torch.ones(4, dtype=torch.float64))
    assert psnr(1 - image, image, channel=channel).isfinite().all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_ground_truth_of_0_to_255_is_refused_with_the_remedy(metric):
    gt = torch.arange(3 * 13 * 13.0).view(1, 3, 13, 13) % 256
    with pytest.raises(ValueError, match=r"^gt reaches 255; expected .* divide .* by 255$"):
        metric(gt, gt)
    with pytest.raises(ValueError, match=r"gt reaches 1\.01;"):
        metric(gt / 255, gt / 255 * 1.01)
    assert metric(gt / 255 + 0.5, gt / 255 * 1.001).isfinite().all(), "rounding may leave [0, 1]"


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


@pytest.mark.parametrize("sides", [(17,), (7, 8, 9)])
def test_signals_and_volumes_have_a_psnr_and_no_ssim(sides):
    generator = torch.Generator().manual_seed(1)
    gt = round_to_8_bit(torch.rand(2, 3, *sides, generator=generator).double())
    output = gt + 0.1 * torch.randn(gt.shape, generator=generator)
    inner = (slice(None), *(slice(2, side - 2) for side in sides))
    expected = [
        peak_signal_noise_ratio(b[inner].numpy(), a[inner].numpy(), data_range=1)
        for a, b in zip(round_to_8_bit(output), gt, strict=True)
    ]
    torch.testing.assert_close(psnr(output, gt, border=2), torch.tensor(expected))
    assert psnr(output, gt, channel="y").isfinite().all()
    with pytest.raises(ValueError, match="border 4 leaves nothing of an image"):
        psnr(output[..., :8], gt[..., :8], border=4)
    with pytest.raises(ValueError, match=r"SSIM expects images \[N, C, H, W\]"):
        ssim(output, gt)


@pytest.mark.parametrize(("layer", "sides"), [(nn.Conv1d, (12,)), (nn.Conv3d, (6, 5, 4))])
def test_pairs_of_signals_and_of_volumes_are_masked(layer, sides):
    nets = networks(
        lambda: nn.Sequential(layer(2, 4, 3, padding=1), nn.ReLU(), layer(4, 2, 3, padding=1))
    )
    gt, *lq = (torch.rand(3, 2, *sides, dtype=torch.float64) for _ in range(3))
    data = Crops(dict(zip(("a", "b"), lq, strict=True)), gt, ("x 0,0", "x 0,1", "y 0,0"))
    result = faigfast.attribute(*nets, {"lq": data.lq, "gt": gt}, steps=2)
    masking_result = mask(*nets, result, data, fractions=[1.0], border=1)
    masked = masking_result.find("a", 1.0)  # filters of the baseline, biases of the target
    edited = result.top("a", 1.0).swap(*nets)
    with torch.no_grad():
        expected = psnr(edited(data.lq["b"]), gt, border=1)
    torch.testing.assert_close(masked.psnr["b"], expected)


def test_crops_of_one_colour_are_left_out():
    gt = torch.rand(4, 3, 8, 8)
    gt[1] = 0.5
    gt[2, :, 2:-2, 2:-2] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    gt[3, 0] = 0.25  # the other channels are not flat
    data = Crops({"blur": gt[..., ::2, ::2]}, gt, ("a 0,0", "a 0,1", "b 0,0", "b 0,1"))
    assert data.without_flat(2).names == ("a 0,0", "b 0,1")
    assert data.without_flat(0).names == ("a 0,0", "b 0,0", "b 0,1")
    assert len(data.without_flat(2).lq["blur"]) == 2
