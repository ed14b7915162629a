"""Networks of the zoo against the architectures of spandrel, loaded from their state dicts."""

import pytest
import torch
from cases.spandrel_networks import architecture, perturbed

import faigfast
from faigfast.zoo import SPAN, DnCNN, DRUNet, RRDBNet, SRVGGNetCompact, SwinIR


def with_level(net, x):
    """Append the default noise level as a channel."""
    return net(torch.cat([x, torch.full_like(x[:, :1], 15 / 255)], 1))


def plain(net, x):
    return net(x)


CASES = {
    "Compact": ("Compact", {"num_feat": 8, "num_conv": 2, "upscale": 3}, SRVGGNetCompact, plain),
    "Compact grey": (
        "Compact",
        {"num_in_ch": 1, "num_out_ch": 1, "num_feat": 5, "num_conv": 1, "upscale": 1},
        SRVGGNetCompact,
        plain,
    ),
    "SPAN": (
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
        SPAN,
        plain,
    ),
    "SPAN without norm": (
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 6, "upscale": 4, "norm": False},
        SPAN,
        plain,
    ),
    "DnCNN": ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 9, "act_mode": "R"}, DnCNN, plain),
    "DnCNN with batch norm": ("DnCNN", {"nc": 8, "nb": 5, "act_mode": "BR"}, DnCNN, plain),
    "DRUNet": (
        "DRUNet",
        {"in_nc": 4, "out_nc": 3, "nc": [4, 5, 6, 7], "nb": 2},
        DRUNet,
        with_level,
    ),
    "ESRGAN ×1": ("ESRGAN", {"num_filters": 8, "num_blocks": 2, "scale": 1}, RRDBNet, plain),
    "ESRGAN ×2": ("ESRGAN", {"num_filters": 8, "num_blocks": 2, "scale": 2}, RRDBNet, plain),
    "ESRGAN ×4": ("ESRGAN", {"num_filters": 8, "num_blocks": 2, "scale": 4}, RRDBNet, plain),
    "ESRGAN ×8": ("ESRGAN", {"num_filters": 4, "num_blocks": 1, "scale": 8}, RRDBNet, plain),
    "ESRGAN unshuffled": (
        "ESRGAN",
        {"in_nc": 12, "num_filters": 4, "num_blocks": 1, "scale": 4, "shuffle_factor": 2},
        RRDBNet,
        plain,
    ),
    "SwinIR": (
        "SwinIR",
        {
            "img_size": 16,
            "embed_dim": 8,
            "depths": [2],
            "num_heads": [2],
            "window_size": 8,
            "mlp_ratio": 2.0,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
        SwinIR,
        plain,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_spandrels(name):
    package, sizes, family, call = CASES[name]
    kind = {"ESRGAN": "ESRGAN"}.get(package, package)
    theirs = perturbed(architecture(package, kind)(**sizes))
    ours = faigfast.load_model(theirs.state_dict())
    assert type(ours) is family
    x = torch.rand(2, ours.channels, 16, 8)
    with torch.no_grad():
        expected = call(theirs, x)
        assert expected.shape[-2:] == (16 * ours.scale, 8 * ours.scale)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("name", ["SPAN", "ESRGAN ×4", "DnCNN with batch norm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_saved_like_their_files_their_networks_read_them(name, suffix, tmp_path):
    package, sizes, _, call = CASES[name]
    theirs = perturbed(architecture(package)(**sizes))
    like, new = tmp_path / f"like{suffix}", tmp_path / f"new{suffix}"
    if suffix == ".pth":
        torch.save({"params": theirs.state_dict()}, like)
    else:
        faigfast.save_model(theirs, like)
    ours = faigfast.load_model(like)
    x = torch.rand(1, ours.channels, 16, 8)
    with torch.no_grad():
        for n, weight in enumerate(ours.parameters()):
            if n % 3 == 0:
                weight.mul_(1.25)
    faigfast.save_model(ours, new, like=like)
    state = faigfast.zoo.checkpoints.read_checkpoint(new).state
    assert list(state) == list(faigfast.zoo.checkpoints.read_checkpoint(like).state)
    theirs.load_state_dict(state)
    with torch.no_grad():
        expected = ours(x)
        torch.testing.assert_close(
            call(theirs, x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max()
        )


def test_trunk_names_are_read_as_bsrgan_writes_them():
    """BSRGAN's names, from spandrel's network of the first style."""
    theirs = perturbed(architecture("ESRGAN")(num_filters=4, num_blocks=2, scale=2))
    heads = {"0": "conv_first", "3": "upconv1", "5": "HRconv", "7": "conv_last"}
    state = {}
    for name, value in theirs.state_dict().items():
        parts = name.split(".")
        if parts[1] != "1":
            new = f"{heads[parts[1]]}.{parts[2]}"
        elif len(parts) == 5:
            new = f"trunk_conv.{parts[-1]}"
        else:
            new = f"RRDB_trunk.{parts[3]}.{parts[4]}.{parts[5]}.{parts[-1]}"
        state[new] = value
    ours = faigfast.load_model(state)
    assert type(ours) is RRDBNet and ours.scale == 2
    assert ours.faigfast_source.remarks == ("read from ESRGAN's names RRDB_trunk",)
    x = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
