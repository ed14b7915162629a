"""EDSR, RCAN, RRDBNet and SwinIR: sizes, inference from keys, initialisation and training."""

import pytest
import torch
from cases.basicsr import shaken, shapes

import faigfast
from faigfast.cli.main import build_parser
from faigfast.cli.train import _network
from faigfast.zoo import EDSR, FAMILIES, RCAN, RRDBNet, SRCNNStyle, SRResNet, SwinIR, infer_network
from faigfast.zoo.rrdbnet import RRDB

CLASSICAL = {"width": 180, "depths": (6,) * 6, "heads": (6,) * 6}
LARGE = {"width": 248, "depths": (6,) * 9, "heads": (8,) * 9, "residual": "3conv"}
PUBLISHED = {
    "EDSR M ×2": (EDSR, {"scale": 2}, 72, 1_369_859),
    "EDSR L ×4": (EDSR, {"width": 256, "blocks": 32, "res_scale": 0.1}, 138, 43_089_923),
    "RCAN ×2": (RCAN, {"blocks": 20, "scale": 2}, 1628, 15_444_643),
    "RRDBNet ×4": (RRDBNet, {}, 702, 16_697_987),
    "SwinIR lightweight ×2": (SwinIR, {"scale": 2}, 366, 910_152),
    "SwinIR classical ×4": (SwinIR, {**CLASSICAL, "upsampler": "pixelshuffle"}, 550, 11_900_199),
    "SwinIR real-world": (SwinIR, {**CLASSICAL, "upsampler": "nearest+conv"}, 552, 11_715_559),
    "SwinIR real-world large": (SwinIR, {**LARGE, "upsampler": "nearest+conv"}, 859, 29_887_443),
    "SwinIR grey denoising": (
        SwinIR,
        {**CLASSICAL, "in_channels": 1, "scale": 1, "upsampler": "", "image_size": 128},
        544,
        11_497_681,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_basicsrs_numbers_of_tensors_and_parameters(name):
    family, sizes, tensors, parameters = PUBLISHED[name]
    with torch.device("meta"):
        net = family(**sizes)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


NETWORKS = [
    EDSR(width=4, blocks=2, scale=2),
    EDSR(width=5, blocks=1, scale=3),
    EDSR(width=4, blocks=11, scale=8),
    EDSR(width=4, blocks=1, scale=1),
    RCAN(width=9, groups=2, blocks=1, scale=2, squeeze=2),
    RCAN(width=16, groups=1, blocks=3, scale=4),
    RRDBNet(width=4, blocks=2, scale=4, growth=3),
    RRDBNet(width=5, blocks=1, scale=2, growth=2),
    RRDBNet(in_channels=1, out_channels=1, width=4, blocks=1, scale=1, growth=2),
    RRDBNet(in_channels=5, width=4, blocks=1, scale=4, growth=2),
    SwinIR(3, 6, (2, 3), (2, 3), 2, 4, 1.7, image_size=(8, 16)),
    SwinIR(3, 4, (2,), (1,), 3, 4, 4.0, "pixelshuffle", image_size=(16, 8)),
    SwinIR(3, 4, (1,), (2,), 4, 3, upsampler="nearest+conv", residual="3conv", image_size=12),
    SwinIR(1, 4, (2,) * 11, (2,) * 11, 1, 2, upsampler="", image_size=4),
    SwinIR(2, 4, (2,), (2,), 5, 1, image_size=3),
    SwinIR(3, 4, (2,), (2,), 1, 7, upsampler="", image_size=126, img_range=255.0),
]


def label(net):
    return f"{type(net).__name__}-x{net.scale}" if hasattr(net, "scale") else None


@pytest.mark.parametrize("net", NETWORKS, ids=label)
def test_infer_finds_the_sizes_whatever_the_order_of_keys(net):
    state = shaken(net).state_dict()
    rng = torch.get_rng_state()
    inferred = infer_network(dict(sorted(state.items(), reverse=True)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(inferred) is type(net)
    assert list(inferred.state_dict()) == list(state)
    for key, buffer in inferred.named_buffers():  # masks and positions depend only on the sizes
        assert key == "mean" or torch.equal(buffer, state[key])
    inferred.eval().load_state_dict(state)
    unshuffled = {1: 4, 2: 2}.get(net.scale, 1) if isinstance(net, RRDBNet) else 1
    channels = state["conv_first.weight"].shape[1] // unshuffled**2
    x = torch.rand(1, channels, 8, 12)
    assert torch.equal(inferred(x), net(x))


def test_infer_takes_published_values_that_nothing_tells():
    with torch.device("meta"):
        large, other = EDSR(width=256, blocks=32), EDSR(width=256, blocks=31)
        assert EDSR.infer(large.state_dict()).body[0].res_scale == 0.1
        assert EDSR.infer(other.state_dict()).body[0].res_scale == 1.0
    jpeg = SwinIR(1, 4, (2,), (2,), 1, 7, upsampler="", image_size=126)
    other = SwinIR(1, 4, (2,), (2,), 1, 7, upsampler="", image_size=14)
    assert SwinIR.infer(jpeg.state_dict()).img_range == 255.0
    assert SwinIR.infer(other.state_dict()).img_range == 1.0


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_no_family_takes_anothers_state(family):
    others = [*NETWORKS, SRResNet(width=4, blocks=1), SRCNNStyle(widths=(4, 6))]
    for net in others:
        if not isinstance(net, family):
            with pytest.raises(ValueError, match=family.__name__):
                family.infer(net.state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("net", [NETWORKS[0], NETWORKS[4], NETWORKS[6], NETWORKS[10]], ids=label)
def test_load_model_knows_the_network_from_the_file_alone(net, dtype, suffix, tmp_path):
    file = tmp_path / f"net{suffix}"
    faigfast.save_model(shaken(net), file)
    if suffix == ".pth":
        torch.save({"params": {}, "params_ema": torch.load(file)}, file)
    wanted = net
    if dtype == torch.bfloat16:
        wanted = infer_network(net.state_dict()).to(dtype).eval()
        wanted.load_state_dict(net.state_dict())
        faigfast.save_model(wanted, file)
    loaded = faigfast.load_model(file)
    assert type(loaded) is type(net) and not loaded.training
    x = torch.rand(1, 3, 8, 8, dtype=dtype)
    assert loaded(x).dtype == dtype
    assert torch.equal(loaded(x), wanted(x))


SWIN = SwinIR(3, 4, (2,), (2,), 2, 2, image_size=4)
EDGE = "layers.0.residual_group.blocks.1.attn_mask"


def changed(net, **changes):
    """State dict with changed tensors; "__" in a name means ".", and None removes the tensor."""
    state = {**net.state_dict(), **{k.replace("__", "."): v for k, v in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    "family, state, message",
    [
        (EDSR, changed(NETWORKS[0], conv_last__bias=None), r"×2 lacks 'conv_last\.bias'"),
        (EDSR, changed(NETWORKS[0], mean=torch.zeros(3)), "does not have 'mean'"),
        (EDSR, changed(NETWORKS[0], body__1__conv2__bias=None), r"'body\.1\.conv2\.bias'"),
        (EDSR, changed(NETWORKS[0], upsample__0__weight=torch.zeros(7)), r"'upsample\.0\.weight'"),
        (EDSR, changed(NETWORKS[0], conv_first__weight=torch.zeros(4, 1, 3, 3)), "in_channels 1"),
        (EDSR, changed(NETWORKS[0], conv_first__weight=torch.zeros(0, 3, 3, 3)), "width 0"),
        (
            EDSR,
            changed(NETWORKS[0], upsample__0__weight=torch.zeros(100, 4, 3, 3)),
            "scale is 5; pixel shuffles enlarge by 3 or a power of two",
        ),
        (RCAN, changed(NETWORKS[4], body__1__conv__bias=torch.zeros(8)), r"found \[8\]"),
        (RRDBNet, changed(NETWORKS[6], conv_hr__weight=None), r"lacks 'conv_hr\.weight'"),
        (
            RRDBNet,
            changed(NETWORKS[6], body__0__rdb1__conv1__weight=torch.zeros(0, 4, 3, 3)),
            "growth 0",
        ),
        (SwinIR, changed(SWIN, absolute_pos_embed=torch.zeros(1, 16, 4)), "'absolute_pos_embed'"),
        (SwinIR, changed(SWIN, patch_embed__norm__bias=None), r"'patch_embed\.norm\.bias'"),
        (SwinIR, changed(SWIN, conv_first__weight=torch.zeros(0, 0, 3, 3)), "width 0"),
        (SwinIR, changed(SWIN, upsample__0__weight=torch.zeros(12, 4, 3)), "4-D tensor 'upsample"),
    ],
)
def test_infer_says_in_one_sentence_what_does_not_fit(family, state, message):
    with pytest.raises(ValueError, match=message) as caught:
        family.infer(state)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"{family.__name__}[^;]*{message}.*into="):
        infer_network(state)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 1), (7, 5), (2, 9)])
@pytest.mark.parametrize("net", NETWORKS, ids=label)
def test_any_size_is_enlarged(net, height, width):
    channels = net.conv_first.in_channels
    if isinstance(net, RRDBNet) and net.scale < 4:
        factor = 4 // net.scale
        height, width, channels = height * factor, width * factor, channels // factor**2
    y = net(torch.rand(2, channels, height, width))
    *_, last = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    out = channels if isinstance(net, SwinIR) else last.out_channels
    assert y.shape == (2, out, net.scale * height, net.scale * width)
    assert y.isfinite().all()


def test_networks_start_as_basicsrs_do():
    torch.manual_seed(0)
    edsr, rrdb, swin = (
        EDSR(width=32, blocks=1),
        RRDB(16, 32),
        SwinIR(width=60, depths=(1,), heads=(6,)),
    )
    kaiming = (2 / (144 * 9)) ** 0.5  # the fifth convolution takes 16 + 4·32 channels
    assert rrdb.rdb1.conv5.weight.std().item() == pytest.approx(0.1 * kaiming, rel=0.05)
    assert not rrdb.rdb1.conv5.bias.any()
    # PyTorch's default: uniform within ±1/√fan_in
    bound = (32 * 9) ** -0.5
    assert 0.98 * bound < edsr.body[0].conv1.weight.abs().max() <= bound
    block = swin.layers[0].residual_group.blocks[0]
    for weight in (block.attn.qkv.weight, block.mlp.fc2.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.1)
    assert not block.attn.qkv.bias.any() and not block.attn.proj.bias.any()


@pytest.mark.parametrize(
    "family, sizes",
    [
        (EDSR, {"scale": 6}),
        (EDSR, {"blocks": 0}),
        (EDSR, {"rgb_mean": (0.5,)}),
        (EDSR, {"out_channels": 1}),
        (EDSR, {"img_range": 0.0}),
        (RCAN, {"squeeze": 65}),
        (RCAN, {"groups": 0}),
        (RCAN, {"scale": 2.0}),
        (RRDBNet, {"scale": 3}),
        (RRDBNet, {"growth": 0}),
        (SwinIR, {"width": 61}),
        (SwinIR, {"heads": (6, 6)}),
        (SwinIR, {"depths": ()}),
        (SwinIR, {"upsampler": "bicubic"}),
        (SwinIR, {"residual": "2conv"}),
        (SwinIR, {"scale": 2, "upsampler": "nearest+conv"}),
        (SwinIR, {"scale": 2, "upsampler": ""}),
        (SwinIR, {"scale": 6, "upsampler": "pixelshuffle"}),
        (SwinIR, {"image_size": 60}),
        (SwinIR, {"image_size": (64, 8)}),
        (SwinIR, {"mlp_ratio": 0.01}),
        (SwinIR, {"img_range": -1.0}),
        (SwinIR, {"width": 2, "heads": (1, 1, 1, 1), "residual": "3conv"}),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(family, sizes):
    with torch.device("meta"), pytest.raises(ValueError, match=next(iter(sizes))):
        family(**sizes)


@pytest.mark.parametrize(
    "network, family, tensors",
    [
        ("edsr", EDSR, {"body.1.conv1.weight": (6, 6, 3, 3), "upsample.0.weight": (54, 6, 3, 3)}),
        ("rcan", RCAN, {"body.1.residual_group.1.rcab.3.attention.1.weight": (1, 6, 1, 1)}),
        (
            "swinir",
            SwinIR,
            {
                "layers.1.residual_group.blocks.1.attn_mask": (4, 64, 64),
                "layers.1.residual_group.blocks.1.attn.relative_position_bias_table": (225, 2),
                "upsample.0.weight": (27, 6, 3, 3),
            },
        ),
    ],
)
def test_train_builds_the_network_that_is_asked_for(network, family, tensors):
    words = f"train --output here --network {network} --width 6 --depth 2 --scale 3".split()
    net = _network(build_parser().parse_args(words).train)
    assert type(net) is family and net.scale == 3
    by_key = shapes(net)
    assert {key: by_key[key] for key in tensors} == tensors
    assert not [key for key in by_key if key.startswith(("body.2.", "layers.2."))]
    assert type(infer_network(net.state_dict())) is family
