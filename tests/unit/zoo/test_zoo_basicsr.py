"""EDSR, RCAN, RRDBNet and SwinIR: BasicSR's keys and mathematics."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import faigfast
from faigfast.cli.main import build_parser, main
from faigfast.cli.train import _network
from faigfast.zoo import EDSR, FAMILIES, RCAN, RRDBNet, SRCNNStyle, SRResNet, SwinIR, infer_network
from faigfast.zoo.rcan import ChannelAttention
from faigfast.zoo.rrdbnet import RRDB
from faigfast.zoo.swinir import SwinBlock

RGB = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


def shapes(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def conv(x, state, name):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def shaken(net):
    """Move every parameter away from a start where much is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return net.eval()


def weights(**kernels):
    """Spell out the weight and the bias of convolutions, by name and shape of the weight."""
    found = {}
    for name, shape in kernels.items():
        name = name.replace("__", ".")
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def test_edsr_has_basicsrs_keys_in_their_order():
    found = shapes(EDSR(width=4, blocks=2, scale=4))
    assert list(found.items()) == list(
        weights(
            conv_first=(4, 3, 3, 3),
            body__0__conv1=(4, 4, 3, 3),
            body__0__conv2=(4, 4, 3, 3),
            body__1__conv1=(4, 4, 3, 3),
            body__1__conv2=(4, 4, 3, 3),
            conv_after_body=(4, 4, 3, 3),
            upsample__0=(16, 4, 3, 3),
            upsample__2=(16, 4, 3, 3),
            conv_last=(3, 4, 3, 3),
        ).items()
    )


def test_rcan_has_basicsrs_keys_in_their_order():
    found = shapes(RCAN(width=6, groups=1, blocks=2, scale=3, squeeze=4))
    assert list(found.items()) == list(
        weights(
            conv_first=(6, 3, 3, 3),
            body__0__residual_group__0__rcab__0=(6, 6, 3, 3),
            body__0__residual_group__0__rcab__2=(6, 6, 3, 3),
            body__0__residual_group__0__rcab__3__attention__1=(1, 6, 1, 1),
            body__0__residual_group__0__rcab__3__attention__3=(6, 1, 1, 1),
            body__0__residual_group__1__rcab__0=(6, 6, 3, 3),
            body__0__residual_group__1__rcab__2=(6, 6, 3, 3),
            body__0__residual_group__1__rcab__3__attention__1=(1, 6, 1, 1),
            body__0__residual_group__1__rcab__3__attention__3=(6, 1, 1, 1),
            body__0__conv=(6, 6, 3, 3),
            conv_after_body=(6, 6, 3, 3),
            upsample__0=(54, 6, 3, 3),
            conv_last=(3, 6, 3, 3),
        ).items()
    )


def test_rrdbnet_has_basicsrs_keys_in_their_order():
    found = shapes(RRDBNet(width=4, blocks=1, scale=2, growth=2))
    dense = {
        f"body__0__rdb{i}__conv{j}": (2 if j < 5 else 4, 2 + 2 * j, 3, 3)
        for i in (1, 2, 3)
        for j in (1, 2, 3, 4, 5)
    }
    plain = ("conv_body", "conv_up1", "conv_up2", "conv_hr")
    assert list(found.items()) == list(
        weights(
            conv_first=(4, 12, 3, 3),
            **dense,
            **dict.fromkeys(plain, (4, 4, 3, 3)),
            conv_last=(3, 4, 3, 3),
        ).items()
    )


def swin_block(name, mask):
    """Spell out a block of 4 channels, 2 heads, 6 hidden channels and windows of 2."""
    masked = {f"{name}.attn_mask": (6, 4, 4)} if mask else {}
    return {
        **masked,
        f"{name}.norm1.weight": (4,),
        f"{name}.norm1.bias": (4,),
        f"{name}.attn.relative_position_bias_table": (9, 2),
        f"{name}.attn.relative_position_index": (4, 4),
        f"{name}.attn.qkv.weight": (12, 4),
        f"{name}.attn.qkv.bias": (12,),
        f"{name}.attn.proj.weight": (4, 4),
        f"{name}.attn.proj.bias": (4,),
        f"{name}.norm2.weight": (4,),
        f"{name}.norm2.bias": (4,),
        f"{name}.mlp.fc1.weight": (6, 4),
        f"{name}.mlp.fc1.bias": (6,),
        f"{name}.mlp.fc2.weight": (4, 6),
        f"{name}.mlp.fc2.bias": (4,),
    }


TAILS = {
    ("pixelshuffle", 3): weights(
        conv_before_upsample__0=(64, 4, 3, 3), upsample__0=(576, 64, 3, 3), conv_last=(3, 64, 3, 3)
    ),
    ("pixelshuffle", 4): weights(
        conv_before_upsample__0=(64, 4, 3, 3),
        upsample__0=(256, 64, 3, 3),
        upsample__2=(256, 64, 3, 3),
        conv_last=(3, 64, 3, 3),
    ),
    ("pixelshuffledirect", 4): weights(upsample__0=(48, 4, 3, 3)),
    ("nearest+conv", 4): weights(
        conv_before_upsample__0=(64, 4, 3, 3),
        conv_up1=(64, 64, 3, 3),
        conv_up2=(64, 64, 3, 3),
        conv_hr=(64, 64, 3, 3),
        conv_last=(3, 64, 3, 3),
    ),
    ("", 1): weights(conv_last=(3, 4, 3, 3)),
}


@pytest.mark.parametrize("residual", ["1conv", "3conv"])
@pytest.mark.parametrize("upsampler, scale", TAILS, ids=lambda value: str(value) or "none")
def test_swinir_has_basicsrs_keys_in_their_order(upsampler, scale, residual):
    net = SwinIR(3, 4, (2, 1), (2, 2), scale, 2, 1.5, upsampler, residual, image_size=(4, 6))

    def closing(name):
        if residual == "1conv":
            return weights(**{name: (4, 4, 3, 3)})
        narrow = {
            f"{name}__0": (1, 4, 3, 3),
            f"{name}__2": (1, 1, 1, 1),
            f"{name}__4": (4, 1, 3, 3),
        }
        return weights(**narrow)

    norm = {"patch_embed.norm.weight": (4,), "patch_embed.norm.bias": (4,)}
    assert list(shapes(net).items()) == list(
        {
            **weights(conv_first=(4, 3, 3, 3)),
            **norm,
            **swin_block("layers.0.residual_group.blocks.0", mask=False),
            **swin_block("layers.0.residual_group.blocks.1", mask=True),
            **closing("layers__0__conv"),
            **swin_block("layers.1.residual_group.blocks.0", mask=False),
            **closing("layers__1__conv"),
            "norm.weight": (4,),
            "norm.bias": (4,),
            **closing("conv_after_body"),
            **TAILS[upsampler, scale],
        }.items()
    )
    state = net.state_dict()
    index = state["layers.0.residual_group.blocks.0.attn.relative_position_index"]
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    mask = state["layers.0.residual_group.blocks.1.attn_mask"]
    assert mask.dtype == torch.float32 and set(mask.unique().tolist()) == {-100.0, 0.0}
    assert mask.flatten(1).any(1).tolist() == [False, False, True, True, True, True]
    assert mask[2, 0].tolist() == [0, -100, 0, -100]  # the right edge: columns apart
    assert mask[3, 0].tolist() == [0, 0, -100, -100]  # the lower edge: rows apart


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
    found = infer_network(dict(sorted(state.items(), reverse=True)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(found) is type(net)
    assert list(found.state_dict()) == list(state)
    for key, buffer in found.named_buffers():  # masks and positions follow from the sizes
        assert key == "mean" or torch.equal(buffer, state[key])
    found.eval().load_state_dict(state)
    unshuffled = {1: 4, 2: 2}.get(net.scale, 1) if isinstance(net, RRDBNet) else 1
    channels = state["conv_first.weight"].shape[1] // unshuffled**2
    x = torch.rand(1, channels, 8, 12)
    assert torch.equal(found(x), net(x))


def test_infer_takes_published_values_that_nothing_tells():
    with torch.device("meta"):
        large, other = EDSR(width=256, blocks=32), EDSR(width=256, blocks=31)
        assert EDSR.infer(large.state_dict()).body[0].res_scale == 0.1
        assert EDSR.infer(other.state_dict()).body[0].res_scale == 1.0
    jpeg = SwinIR(1, 4, (2,), (2,), 1, 7, upsampler="", image_size=126)
    other = SwinIR(1, 4, (2,), (2,), 1, 7, upsampler="", image_size=14)
    assert SwinIR.infer(jpeg.state_dict()).img_range == 255.0
    assert SwinIR.infer(other.state_dict()).img_range == 1.0


@pytest.mark.parametrize("hidden", range(1, 60))
def test_infer_finds_the_hidden_channels_exactly(hidden):
    net = SwinIR(3, 49, (1,), (1,), 2, 2, (hidden + 0.5) / 49, image_size=4)
    assert net.state_dict()["layers.0.residual_group.blocks.0.mlp.fc1.bias"].shape == (hidden,)
    assert shapes(SwinIR.infer(net.state_dict())) == shapes(net)


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
    """Give a state dict with "." written as "__" in the names, None for what is taken out."""
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
        (SwinIR, changed(SWIN, **{EDGE: None}), "lacks 'layers.*attn_mask'"),
        (SwinIR, changed(SWIN, **{EDGE: torch.zeros(4, 4, 4)}), "image_size"),
        (SwinIR, changed(SWIN, **{EDGE: torch.zeros(0, 4, 4)}), "image_size"),
        (SwinIR, changed(SWIN, **{EDGE: torch.tensor(1.0)}), "3-D tensor 'layers.*attn_mask'"),
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


@pytest.mark.parametrize("scale, factors", [(1, []), (2, [2]), (3, [3]), (4, [2, 2])])
@pytest.mark.parametrize("res_scale, img_range", [(1.0, 255.0), (0.1, 10.0)])
def test_edsr_is_the_formula(scale, factors, res_scale, img_range):
    options = {"scale": scale, "res_scale": res_scale, "img_range": img_range}
    net = shaken(EDSR(width=4, blocks=2, **options)).double()
    state = net.state_dict()
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    first = y = conv((x - RGB) * img_range, state, "conv_first")
    for block in ("body.0", "body.1"):
        y = y + res_scale * conv(F.relu(conv(y, state, f"{block}.conv1")), state, f"{block}.conv2")
    y = conv(y, state, "conv_after_body") + first
    for stage, factor in enumerate(factors):
        y = F.pixel_shuffle(conv(y, state, f"upsample.{2 * stage}"), factor)
    torch.testing.assert_close(net(x), conv(y, state, "conv_last") / img_range + RGB)


def test_channel_attention_is_the_formula():
    layer = shaken(ChannelAttention(6, squeeze=2)).double()
    state = {key: value.squeeze() for key, value in layer.state_dict().items()}
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    for image, found in zip(x, layer(x), strict=True):
        mean = image.sum((1, 2)) / 15
        narrow = state["attention.1.weight"] @ mean + state["attention.1.bias"]
        factor = state["attention.3.weight"] @ narrow.clamp(min=0) + state["attention.3.bias"]
        torch.testing.assert_close(found, image / (1 + torch.exp(-factor))[:, None, None])


def test_rcan_is_the_formula():
    net = shaken(RCAN(width=4, groups=2, blocks=2, scale=2, squeeze=2, res_scale=0.5)).double()
    state = net.state_dict()
    x = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    first = y = conv((x - RGB) * 255, state, "conv_first")
    for group in (0, 1):
        start = y
        for block in (0, 1):
            name = f"body.{group}.residual_group.{block}.rcab"
            z = conv(F.relu(conv(y, state, f"{name}.0")), state, f"{name}.2")
            squeezed = F.relu(conv(z.mean((2, 3), keepdim=True), state, f"{name}.3.attention.1"))
            y = y + 0.5 * z * conv(squeezed, state, f"{name}.3.attention.3").sigmoid()
        y = start + conv(y, state, f"body.{group}.conv")
    y = F.pixel_shuffle(conv(conv(y, state, "conv_after_body") + first, state, "upsample.0"), 2)
    torch.testing.assert_close(net(x), conv(y, state, "conv_last") / 255 + RGB)


def test_rrdb_scales_its_residuals_by_a_fifth():
    block = shaken(RRDB(4, growth=3)).double()
    state = block.state_dict()
    x = y = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    for name in ("rdb1", "rdb2", "rdb3"):
        seen = [y]
        for i in (1, 2, 3, 4):
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1), state, f"{name}.conv{i}"), 0.2))
        y = y + conv(torch.cat(seen, 1), state, f"{name}.conv5") / 5
    torch.testing.assert_close(block(x), x + y / 5)


@pytest.mark.parametrize("scale, factor", [(4, 1), (2, 2), (1, 4)])
def test_rrdbnet_is_the_formula(scale, factor):
    net = shaken(RRDBNet(width=4, blocks=1, scale=scale, growth=2)).double()
    state = net.state_dict()
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    corners = itertools.product(range(factor), repeat=2)
    phases = [x[:, :, i::factor, j::factor] for i, j in corners]
    y = conv(torch.stack(phases, 2).flatten(1, 2), state, "conv_first")
    y = y + conv(net.body(y), state, "conv_body")
    for name in ("conv_up1", "conv_up2"):
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = F.leaky_relu(conv(y, state, name), 0.2)
    y = conv(F.leaky_relu(conv(y, state, "conv_hr"), 0.2), state, "conv_last")
    torch.testing.assert_close(net(x), y)


def attention_by_hand(x, state, window, shift, heads):
    """Attend pixel by pixel: to those of the same window that the shift did not bring there."""
    height, width, channels = x.shape
    size, y = channels // heads, torch.zeros_like(x)
    qkv = x @ state["attn.qkv.weight"].T + state["attn.qkv.bias"]
    table = state["attn.relative_position_bias_table"]
    pixels = list(itertools.product(range(height), range(width)))
    for row, column in pixels:
        near = [
            (r, c)
            for r, c in pixels
            if (r - shift) % height // window == (row - shift) % height // window
            and (c - shift) % width // window == (column - shift) % width // window
            and (r < shift) == (row < shift)
            and (c < shift) == (column < shift)
        ]
        for head in range(heads):
            q, k, v = (torch.arange(size) + part * channels + head * size for part in range(3))
            scores = torch.stack(
                [
                    qkv[row, column, q] @ qkv[r, c, k] / size**0.5
                    + table[(row - r + window - 1) * (2 * window - 1) + column - c + window - 1][
                        head
                    ]
                    for r, c in near
                ]
            ).exp()
            values = torch.stack([qkv[r, c][v] for r, c in near])
            y[row, column, head * size : (head + 1) * size] = scores @ values / scores.sum()
    return y @ state["attn.proj.weight"].T + state["attn.proj.bias"]


@pytest.mark.parametrize("window, shift", [(2, 0), (2, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("stored", [True, False])
def test_swin_block_attends_within_its_windows(window, shift, stored):
    size = (2 * window, 3 * window)
    block = SwinBlock(6, size if stored else (size[1], size[0]), 2, window, shift, 5)
    block = shaken(block).double()
    with torch.no_grad():
        block.attn.relative_position_bias_table.mul_(20)
    state = block.state_dict()
    x = torch.randn(1, *size, 6, dtype=torch.float64)
    norms = [(state[f"norm{i}.weight"], state[f"norm{i}.bias"]) for i in (1, 2)]
    y = x[0] + attention_by_hand(F.layer_norm(x[0], (6,), *norms[0]), state, window, shift, 2)
    hidden = F.layer_norm(y, (6,), *norms[1]) @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    y = y + hidden @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"]
    torch.testing.assert_close(block(x)[0], y)


def test_swin_images_of_a_batch_do_not_mix():
    net = shaken(SwinIR(3, 4, (2,), (2,), 2, 4, image_size=8)).double()
    x = torch.rand(3, 3, 9, 13, dtype=torch.float64)
    torch.testing.assert_close(net(x), torch.cat([net(image[None]) for image in x]))


@pytest.mark.parametrize("height, width", [(8, 8), (7, 5), (3, 11), (2, 1)])
def test_swinir_reflects_up_to_whole_windows_and_cuts(height, width):
    net = shaken(SwinIR(3, 4, (2,), (2,), 3, 8, image_size=16)).double()
    x = torch.rand(1, 3, height, width, dtype=torch.float64)
    added = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
    whole = torch.from_numpy(np.pad(x.numpy(), added, mode="reflect"))
    torch.testing.assert_close(net(x), net(whole)[:, :, : 3 * height, : 3 * width])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("residual", ["1conv", "3conv"])
@pytest.mark.parametrize("upsampler, scale", TAILS, ids=lambda value: str(value) or "none")
def test_swinir_around_its_blocks_is_the_formula(upsampler, scale, residual, channels):
    net = SwinIR(channels, 4, (1,), (2,), scale, 2, 2.0, upsampler, residual, 4, 10.0)
    state = shaken(net).double().state_dict()

    def closing(y, name):
        if residual == "1conv":
            return conv(y, state, name)
        y = F.leaky_relu(conv(y, state, f"{name}.0"), 0.2)
        return conv(F.leaky_relu(conv(y, state, f"{name}.2"), 0.2), state, f"{name}.4")

    def norm(y, name):
        return F.layer_norm(y, (4,), state[f"{name}.weight"], state[f"{name}.bias"])

    x = torch.rand(1, channels, 4, 6, dtype=torch.float64)
    mean = RGB if channels == 3 else 0
    z = (x - mean) * 10
    first = conv(z, state, "conv_first")
    y = norm(first.permute(0, 2, 3, 1), "patch_embed.norm")
    blocks = net.layers[0].residual_group(y).permute(0, 3, 1, 2)
    y = norm(y + closing(blocks, "layers.0.conv").permute(0, 2, 3, 1), "norm")
    y = closing(y.permute(0, 3, 1, 2), "conv_after_body") + first
    if upsampler == "pixelshuffledirect":
        y = F.pixel_shuffle(conv(y, state, "upsample.0"), scale)
    elif upsampler == "":
        y = z + conv(y, state, "conv_last")
    else:
        y = F.leaky_relu(conv(y, state, "conv_before_upsample.0"), 0.01)
        if upsampler == "pixelshuffle":
            for position, factor in {3: [(0, 3)], 4: [(0, 2), (2, 2)]}[scale]:
                y = F.pixel_shuffle(conv(y, state, f"upsample.{position}"), factor)
        else:
            for name in ("conv_up1", "conv_up2"):
                y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
                y = F.leaky_relu(conv(y, state, name), 0.2)
            y = F.leaky_relu(conv(y, state, "conv_hr"), 0.2)
        y = conv(y, state, "conv_last")
    torch.testing.assert_close(net(x), y / 10 + mean)


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
    # PyTorch's own: uniform within ±1/√fan_in
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
    found = shapes(net)
    assert {key: found[key] for key in tensors} == tensors
    assert not [key for key in found if key.startswith(("body.2.", "layers.2."))]
    assert type(infer_network(net.state_dict())) is family


def test_train_builds_rrdbnet_at_its_own_scales(tmp_path, capsys):
    words = ["train", "--network", "rrdbnet", "--width", "6", "--depth", "2"]
    words += ["--output", str(tmp_path / "pair"), "--quiet"]
    net = _network(build_parser().parse_args(words).train)
    assert type(net) is RRDBNet and net.scale == 2
    assert shapes(net)["body.1.rdb3.conv5.weight"] == (6, 18, 3, 3)
    assert main([*words, "--scale", "3"]) == 1
    assert capsys.readouterr().err == (
        "faigfast: error: scale is 3; RRDBNet enlarges by 1, 2 or 4\n"
    )
