"""SwinIR: BasicSR's keys and mathematics, and hidden channels."""

import itertools

import numpy as np
import pytest
import torch
from cases.basicsr import RGB, conv, shaken, shapes, weights
from torch.nn import functional as F

from faigfast.zoo import SwinIR
from faigfast.zoo.swinir import SwinBlock


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


@pytest.mark.parametrize("hidden", range(1, 60))
def test_infer_finds_the_hidden_channels_exactly(hidden):
    net = SwinIR(3, 49, (1,), (1,), 2, 2, (hidden + 0.5) / 49, image_size=4)
    assert net.state_dict()["layers.0.residual_group.blocks.0.mlp.fc1.bias"].shape == (hidden,)
    assert shapes(SwinIR.infer(net.state_dict())) == shapes(net)


def attention_by_hand(x, state, window, shift, heads):
    """Attention pixel by pixel, within a window and without pixels that the shift wrapped."""
    height, width, channels = x.shape
    size, y = channels // heads, torch.zeros_like(x)
    qkv = x @ state["attn.qkv.weight"].T + state["attn.qkv.bias"]
    biases = state["attn.relative_position_bias_table"]
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
                    + biases[(row - r + window - 1) * (2 * window - 1) + column - c + window - 1][
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
    padded = torch.from_numpy(np.pad(x.numpy(), added, mode="reflect"))
    torch.testing.assert_close(net(x), net(padded)[:, :, : 3 * height, : 3 * width])


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
