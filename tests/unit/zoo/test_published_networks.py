"""SRVGGNetCompact, SPAN, DnCNN, FFDNet, DRUNet: sizes, inference, formulas and noise levels."""

import copy

import pytest
import torch
from cases.basicsr import conv, shaken
from torch.nn import functional as F

import faigfast
from faigfast.zoo import (
    FAMILIES,
    SPAN,
    DnCNN,
    DRUNet,
    FFDNet,
    RRDBNet,
    SRVGGNetCompact,
    SwinIR,
    infer_network,
)

# Sums over the papers' layers: 9·C·O weights and O biases of a 3×3 convolution.
PUBLISHED = {
    "realesr-general-x4v3": (SRVGGNetCompact, {"depth": 32}, 101, 1_213_296),
    "realesr-animevideov3": (SRVGGNetCompact, {"depth": 16}, 53, 621_424),
    "FFDNet grey": (FFDNet, {}, 30, 485_316),
    "FFDNet colour": (FFDNet, {"channels": 3, "width": 96, "depth": 12}, 24, 852_108),
    "DnCNN": (DnCNN, {}, 34, 555_137),
    "DRUNet grey": (DRUNet, {}, 64, 32_638_656),
    "DRUNet colour": (DRUNet, {"channels": 3}, 64, 32_640_960),
}
NETWORKS = [
    SRVGGNetCompact(width=4, depth=2, scale=2),
    SRVGGNetCompact(channels=1, width=5, depth=0, scale=3),
    SRVGGNetCompact(width=4, depth=11, scale=1),
    SPAN(width=4, scale=2),
    SPAN(channels=1, width=5, scale=3, norm=False),
    DnCNN(width=4, depth=2),
    DnCNN(channels=3, width=5, depth=13),
    DnCNN(width=4, depth=7, batch_norm=True),
    FFDNet(width=4, depth=2),
    FFDNet(channels=3, width=5, depth=12),
    DRUNet(widths=(4, 5, 6, 7), blocks=1),
    DRUNet(channels=3, widths=(4, 4, 4, 4), blocks=2),
    RRDBNet(width=4, blocks=1, growth=2, scale=2, unshuffle=1),
    RRDBNet(width=4, blocks=1, growth=2, scale=1, unshuffle=1),
    RRDBNet(width=4, blocks=1, growth=2, scale=8, unshuffle=1),
    RRDBNet(width=4, blocks=1, growth=2, scale=2, unshuffle=4),
]


def label(net):
    return f"{type(net).__name__}-x{net.scale}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    family, sizes, tensors, parameters = PUBLISHED[name]
    with torch.device("meta"):
        net = family(**sizes)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.parametrize("net", NETWORKS, ids=label)
def test_infer_finds_the_sizes_whatever_the_order_of_keys(net):
    state = shaken(net).state_dict()
    rng = torch.get_rng_state()
    inferred = infer_network(dict(sorted(state.items(), reverse=True)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(inferred) is type(net) and list(inferred.state_dict()) == list(state)
    inferred.eval().load_state_dict(state)
    x = torch.rand(1, net.channels, 8, 12)
    assert torch.equal(inferred(x), net(x))
    assert net(x).shape == (1, net.channels, 8 * net.scale, 12 * net.scale)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_no_family_takes_anothers_state(family):
    for net in NETWORKS:
        if not isinstance(net, family):
            with pytest.raises(ValueError, match=family.__name__):
                family.infer(net.state_dict())


@pytest.mark.parametrize("net", [NETWORKS[0], NETWORKS[3], NETWORKS[7], NETWORKS[10]], ids=label)
def test_files_alone_are_enough(net, tmp_path):
    faigfast.save_model(shaken(net), tmp_path / "net.safetensors")
    loaded = faigfast.load_model(tmp_path / "net.safetensors")
    x = torch.rand(2, net.channels, 9, 7)
    assert type(loaded) is type(net) and torch.equal(loaded(x), net(x))


def changed(net, **changes):
    """State dict with changed tensors; "__" in a name means ".", and None removes the tensor."""
    state = {**net.state_dict(), **{k.replace("__", "."): v for k, v in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("family", "state", "message"),
    [
        (SRVGGNetCompact, changed(NETWORKS[0], body__1__weight=None), r"1-D tensor 'body\.1"),
        (SRVGGNetCompact, changed(NETWORKS[0], body__2__bias=None), r"lacks 'body\.2\.bias'"),
        (
            SRVGGNetCompact,
            changed(NETWORKS[0], body__6__weight=torch.zeros(10, 4, 3, 3)),
            r"found \[10, 4, 3, 3\]",
        ),
        (SPAN, changed(NETWORKS[3], conv_cat__bias=None), r"lacks 'conv_cat\.bias'"),
        (SPAN, changed(NETWORKS[3], extra=torch.zeros(1)), "does not have 'extra'"),
        (DnCNN, changed(NETWORKS[6], model__4__bias=None), r"lacks 'model\.4\.bias'"),
        (DnCNN, changed(NETWORKS[5], model__2__weight=torch.zeros(3, 4, 3, 3)), "found 3"),
        (FFDNet, changed(NETWORKS[8], model__0__weight=torch.zeros(4, 6, 3, 3)), "found 6"),
        (DRUNet, changed(NETWORKS[10], m_up1__0__weight=None), r"lacks 'm_up1\.0\.weight'"),
        (DRUNet, changed(NETWORKS[10], m_head__weight=torch.zeros(0, 2, 3, 3)), "positive"),
        (RRDBNet, changed(NETWORKS[12], conv_up1__weight=None), r"conv_up1"),
    ],
)
def test_infer_says_what_does_not_fit(family, state, message):
    with pytest.raises(ValueError, match=message) as caught:
        family.infer(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        (SRVGGNetCompact, {"scale": 0}),
        (SRVGGNetCompact, {"depth": -1}),
        (SPAN, {"width": 0}),
        (SPAN, {"channels": 1}),
        (DnCNN, {"depth": 1}),
        (FFDNet, {"width": 0}),
        (FFDNet, {"depth": 1}),
        (DRUNet, {"widths": (4, 4, 4)}),
        (DRUNet, {"blocks": 0}),
        (RRDBNet, {"scale": 3}),
        (RRDBNet, {"scale": 3, "unshuffle": 1}),
        (RRDBNet, {"scale": 0, "unshuffle": 4}),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(family, sizes):
    with torch.device("meta"), pytest.raises(ValueError, match=next(iter(sizes))):
        family(**sizes)


# Formulas


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 1)])
def test_ffdnet_is_the_formula(height, width):
    net = shaken(FFDNet(channels=2, width=4, depth=3, noise_level=0.1)).double()
    state = net.state_dict()
    x = torch.rand(2, 2, height, width, dtype=torch.float64)
    y = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    y = torch.stack([y[:, :, r::2, c::2] for r in (0, 1) for c in (0, 1)], 2).flatten(1, 2)
    y = torch.cat((y, torch.full_like(y[:, :1], 0.1)), 1)
    y = conv(conv(y, state, "model.0").relu(), state, "model.2").relu()
    y = F.pixel_shuffle(conv(y, state, "model.4"), 2)[:, :, :height, :width]
    torch.testing.assert_close(net(x), y)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (5, 9), (1, 3)])
def test_drunet_extends_to_multiples_of_eight_and_cuts(height, width):
    net = shaken(DRUNet(widths=(4, 4, 4, 4), blocks=1)).double()
    x = torch.rand(1, 1, height, width, dtype=torch.float64)
    added = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    torch.testing.assert_close(net(x), net(added)[:, :, :height, :width])


# Noise levels


@pytest.mark.parametrize("make", [lambda: FFDNet(1, 4, 3), lambda: DRUNet(1, (4,) * 4, 1)])
def test_the_noise_level_is_an_attribute(make):
    net = shaken(make())
    x = torch.rand(1, 1, 8, 8)
    assert net.noise_level == pytest.approx(15 / 255)
    before = net(x)
    other = copy.deepcopy(net)
    net.noise_level = 0.5
    assert net.noise_level == 0.5 and other.noise_level == pytest.approx(15 / 255)
    assert not torch.equal(net(x), before) and torch.equal(other(x), before)
    assert net.double().noise_level == 0.5


@pytest.mark.parametrize(
    ("value", "kind"), [(-0.1, ValueError), (float("nan"), ValueError), ("25", TypeError)]
)
def test_wrong_noise_levels(value, kind):
    with pytest.raises(kind, match="noise_level is"):
        FFDNet(1, 4, 3, noise_level=value)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_scores_follow_the_noise_level(backend):
    torch.manual_seed(0)
    pair = [FFDNet(1, 4, 3).eval() for _ in range(2)]
    batch = torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6)
    exact = tuple(tensor.double() for tensor in batch)
    for level in (0.02, 0.6):
        for net in pair:
            net.noise_level = level
        double = [copy.deepcopy(net).double() for net in pair]
        expected = faigfast.attribute(*double, exact, steps=3, backend="reference").scores("lq")
        scores = faigfast.attribute(*pair, batch, steps=3, backend=backend).scores("lq")
        torch.testing.assert_close(scores.double(), expected.double(), rtol=1e-3, atol=1e-6)
    other = copy.deepcopy(pair[0])
    other.noise_level = 9.0
    with pytest.raises(ValueError, match="networks that differ in their tensors alone"):
        faigfast.attribute(other, pair[1], batch, steps=3, backend=backend)


# SwinIR's masks and positions


def swin(image_size=8, seed=0):
    torch.manual_seed(seed)
    return shaken(SwinIR(3, 4, (2,), (2,), 2, 4, image_size=image_size))


def stored(net):
    """State dict without masks and positions."""
    ends = ("attn_mask", "relative_position_index")
    return {k: v for k, v in net.state_dict().items() if not k.endswith(ends)}


def test_masks_and_positions_are_computed_where_the_file_has_none(tmp_path):
    net, path = swin(), tmp_path / "net.pth"
    torch.save({"params": stored(net)}, path)
    loaded = faigfast.load_model(path)
    x = torch.rand(1, 3, 9, 5)
    torch.testing.assert_close(loaded(x), net(x), rtol=0, atol=0)
    half = faigfast.load_model(path, dtype="float64")
    assert half(x.double()).dtype == torch.float64
    faigfast.save_model(loaded, tmp_path / "new.pth", like=path)
    new = torch.load(tmp_path / "new.pth", weights_only=True)["params"]
    assert new.keys() == stored(net).keys()
    own = faigfast.load_model(path, into=swin(seed=3))
    torch.testing.assert_close(own(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("mask", [torch.zeros(4, 16, 16), torch.zeros(0, 2), torch.tensor(1.0)])
def test_masks_are_not_compared(mask, tmp_path):
    net = swin()
    state = {**net.state_dict(), "layers.0.residual_group.blocks.1.attn_mask": mask}
    loaded = faigfast.load_model(state)
    x = torch.rand(1, 3, 9, 5)
    torch.testing.assert_close(loaded(x), net(x), rtol=0, atol=0)


def test_a_pair_trained_on_patches_of_two_sizes(tmp_path):
    nets = swin(8), swin(12, seed=1)
    for net, name in zip(nets, "ab", strict=True):
        torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    pair = faigfast.load_pair(tmp_path / "a.pth", tmp_path / "b.pth")
    x = torch.rand(1, 3, 9, 5)
    for loaded, net in zip(pair, nets, strict=True):
        torch.testing.assert_close(loaded(x), net(x), rtol=0, atol=0)
    result = faigfast.attribute(*pair, (x, torch.rand(1, 3, 18, 10)), steps=2)
    assert result.scores("lq").isfinite().all()
    faigfast.save_model(pair[1], tmp_path / "new.pth", like=tmp_path / "b.pth")
    new, old = (torch.load(tmp_path / f"{n}.pth", weights_only=True) for n in ("new", "b"))
    assert all(torch.equal(new[k], old[k]) for k in old) and list(new) == list(old)


def test_a_pair_of_which_one_file_has_masks():
    nets = swin(12), swin(12, seed=1)
    for states in (
        (stored(nets[0]), nets[1].state_dict()),
        (nets[0].state_dict(), stored(nets[1])),
    ):
        a, b = faigfast.load_pair(*states)
        key = "layers.0.residual_group.blocks.1.attn_mask"
        for loaded in (a, b):
            assert loaded.state_dict()[key].shape == (9, 16, 16)
