"""Other forms of the zoo's state dicts: SPAN's branches and ESRGAN's older names."""

import logging

import pytest
import torch
from cases.basicsr import shaken
from safetensors.torch import save_file
from torch.nn import functional as F

import faigfast
from faigfast.zoo import SPAN, RRDBNet
from faigfast.zoo.checkpoints import load_model, load_pair, save_model
from faigfast.zoo.forms import form_of
from faigfast.zoo.span_branches import PARTS, branches, merge


def parts(inputs=3, outputs=5, gain=2, dtype=torch.float64):
    """Random branches of one convolution."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "sk": (outputs, inputs, 1, 1),
        "conv.0": (gain * inputs, inputs, 1, 1),
        "conv.1": (gain * outputs, gain * inputs, 3, 3),
        "conv.2": (outputs, gain * outputs, 1, 1),
    }
    made = {}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = torch.randn(shape, generator=generator, dtype=dtype)
        made[f"{name}.bias"] = torch.randn(shape[0], generator=generator, dtype=dtype)
    return made


def as_trained(x, branch):
    """Run the branches as they are trained, on the padded image."""
    y = F.pad(x, (1, 1, 1, 1))
    for n in range(3):
        y = F.conv2d(y, branch[f"conv.{n}.weight"], branch[f"conv.{n}.bias"])
    return y + F.conv2d(x, branch["sk.weight"], branch["sk.bias"])


def test_branches_merge_into_one_convolution():
    branch = parts()
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    merged = F.conv2d(x, *merge(branch), padding=1)
    torch.testing.assert_close(merged, as_trained(x, branch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_new_branches_merge_into_the_kernel_to_the_bit(dtype):
    old = parts(dtype=dtype)
    weight, bias = torch.randn(5, 3, 3, 3).to(dtype), torch.randn(5).to(dtype)
    new = branches(weight, bias, old)
    assert list(new) == list(PARTS)
    assert all(new[name].shape == old[name].shape for name in PARTS)
    assert all(map(torch.equal, merge(new), (weight, bias)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv.1.bias": None}, r"SPAN lacks 'conv\.1\.bias' of 'c'"),
        ({"conv.1.weight": torch.zeros(10, 5, 3, 3)}, r"found .*\[10, 5, 3, 3\]"),
        ({"conv.0.weight": torch.zeros(2, 3, 1, 1)}, "SPAN needs 'c' of"),
        ({"sk.weight": torch.zeros(5, 3)}, "SPAN needs 'c' of"),
        ({"sk.bias": torch.zeros(4)}, r"a bias of sk\.weight of 'c', found \[4\]"),
    ],
)
def test_branches_that_do_not_go_together(changes, message):
    state = {**parts(), **changes}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        merge(state, "'c'")


def trained(seed=0, stale=True):
    """State dict of a SPAN with branches, its merged kernels out of date."""
    torch.manual_seed(seed)
    net = shaken(SPAN(width=4, scale=2))
    state = {}
    for name, value in net.state_dict().items():
        head, is_merged, end = name.partition("eval_conv.")
        if is_merged and end == "weight":
            outputs, inputs = value.shape[:2]
            made = parts(inputs, outputs, dtype=torch.float32)
            noise = 0.05 + 0.05 * torch.rand(())
            state |= {f"{head}{part}": noise * made[part] for part in PARTS}
        state[name] = torch.zeros_like(value) if stale and is_merged else value
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_span_is_merged_at_load_and_its_branches_come_back(tmp_path, suffix, caplog):
    like, new = tmp_path / f"like{suffix}", tmp_path / f"new{suffix}"
    state = trained()
    if suffix == ".pth":
        torch.save({"params": state}, like)
    else:
        save_file(state, like)
    net = load_model(like)
    assert type(net) is SPAN
    assert net.faigfast_source.remarks == ("read from SPAN's branches",)
    assert len([name for name in net.state_dict() if name.endswith("weight")]) == 22
    with caplog.at_level(logging.WARNING, logger="faigfast"):
        save_model(net, new, like=like)
    assert not caplog.records
    written = faigfast.zoo.checkpoints.read_checkpoint(new).state
    assert list(written) == list(faigfast.zoo.checkpoints.read_checkpoint(like).state)
    for name, value in written.items():
        wanted = net.state_dict()[name] if "eval_conv" in name else state[name]
        assert torch.equal(value, wanted), name
    with torch.no_grad():
        net.block_2.c1_r.eval_conv.weight[1, 2] += 1
    with caplog.at_level(logging.WARNING, logger="faigfast"):
        save_model(net, new, like=like)
    assert "1 of 20 convolutions have other kernels" in caplog.text
    again = load_model(new).state_dict()
    assert all(torch.equal(again[name], value) for name, value in net.state_dict().items())


def test_pairs_of_spans_share_one_kernel_a_convolution():
    pair = load_pair(trained(), trained(seed=1))
    x, gt = torch.rand(1, 3, 6, 5), torch.rand(1, 3, 12, 10)
    result = faigfast.attribute(*pair, (x, gt), steps=2, backend="reference")
    assert set(result.index.layers) == {
        name for name, value in pair[0].state_dict().items() if value.ndim == 4
    }
    merged = {name: v for name, v in load_model(trained()).state_dict().items()}
    baseline, _ = load_pair(merged, trained(seed=1))
    assert torch.equal(baseline(x), pair[0](x))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_scores_of_span_are_the_references(backend):
    pair = load_pair(trained(), trained(seed=1), dtype="float64")
    batch = (torch.rand(1, 3, 6, 5).double(), torch.rand(1, 3, 12, 10).double())
    expected = faigfast.attribute(*pair, batch, steps=3, backend="reference").scores("lq")
    result = faigfast.attribute(*pair, batch, steps=3, backend=backend)
    assert not any("point by point" in note for note in result.notes)
    torch.testing.assert_close(result.scores("lq"), expected)


def test_half_precision_branches_are_merged_after_a_change_of_type():
    state = {name: value.half() for name, value in trained().items()}
    net = load_model(state, dtype="float64")
    branch = {part: state[f"conv_1.{part}"].double() for part in PARTS}
    assert torch.equal(net.conv_1.eval_conv.weight, merge(branch)[0])
    assert load_model(state).conv_1.eval_conv.weight.dtype == torch.float16


def first_style(net, doublings):
    """Names of ESRGAN's first code, written out."""
    last = 3 * doublings + 4
    heads = {"conv_first": 0, "conv_hr": last - 2, "conv_last": last}
    heads |= {f"conv_up{n + 1}": 3 * n + 3 for n in range(doublings)}
    state = {}
    for name, value in net.state_dict().items():
        head, *rest = name.split(".")
        if head == "body":
            block, dense, layer, kind = rest
            new = f"model.1.sub.{block}.RDB{dense[3]}.{layer}.0.{kind}"
        elif head == "conv_body":
            new = f"model.1.sub.{len(net.body)}.{rest[0]}"
        else:
            new = f"model.{heads[head]}.{rest[0]}"
        state[new] = value
    return state


def later_style(net):
    """Names of ESRGAN's later code and of BSRGAN, written out."""
    heads = {"conv_body": "trunk_conv", "conv_hr": "HRconv"}
    state = {}
    for name, value in net.state_dict().items():
        name = name.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")
        head, dot, rest = name.partition(".")
        state[heads.get(head, head.replace("conv_up", "upconv")) + dot + rest] = value
    return {k.replace("conv_RRDB_trunk", "trunk_conv"): v for k, v in state.items()}


@pytest.mark.parametrize(
    ("scale", "unshuffle", "doublings", "blocks", "prefix"),
    [
        (4, 1, 2, 1, ""),
        (4, 1, 2, 11, "netG."),
        (2, 1, 1, 1, "module."),
        (1, 1, 0, 2, ""),
        (2, 2, 2, 1, ""),
        (16, 1, 4, 1, "netG.module."),
    ],
)
def test_older_names_of_esrgan(tmp_path, scale, unshuffle, doublings, blocks, prefix):
    net = shaken(RRDBNet(width=3, blocks=blocks, growth=2, scale=scale, unshuffle=unshuffle))
    for state in (first_style(net, doublings), later_style(net)):
        assert form_of(state) is not None
        stored = {prefix + name: value for name, value in reversed(state.items())}
        torch.save(stored, tmp_path / "net.pth")
        loaded = load_model(tmp_path / "net.pth")
        assert type(loaded) is RRDBNet and loaded.scale == scale
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())
        save_model(loaded, tmp_path / "new.pth", like=tmp_path / "net.pth")
        new = torch.load(tmp_path / "new.pth", weights_only=True)
        assert list(new) == list(stored) and all(torch.equal(new[k], stored[k]) for k in new)


def test_a_pair_in_two_styles_and_in_ones_own_module():
    net, other = (shaken(RRDBNet(width=3, blocks=1, growth=2)) for _ in range(2))
    pair = load_pair(first_style(net, 2), later_style(other))
    assert pair[0].state_dict().keys() == pair[1].state_dict().keys()
    state = first_style(net, 2)
    state["model.2.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"does not have 'model\.2\.weight'"):
        load_model(state)


def test_a_network_that_like_does_not_fit(tmp_path):
    torch.save(trained(), tmp_path / "span.pth")
    with pytest.raises(ValueError, match=r"in `model` and .* in `like` \(.*span\.pth\)"):
        save_model(SPAN(width=6, scale=2), tmp_path / "new.pth", like=tmp_path / "span.pth")
    net = RRDBNet(width=3, blocks=1, growth=2)
    torch.save(first_style(net, 2), tmp_path / "esrgan.pth")
    other = RRDBNet(width=3, blocks=2, growth=2)
    with pytest.raises(ValueError, match=r"'body\.1.*in `model` and not in `like`"):
        save_model(other, tmp_path / "new.pth", like=tmp_path / "esrgan.pth")
