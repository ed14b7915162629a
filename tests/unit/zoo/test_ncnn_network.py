"""Networks of ncnn as modules: names, values, attribution, and writing them back."""

import logging
import os

import pytest
import torch
from cases.ncnn_files import FLOAT16, array, convolution, values, write_pair
from torch import nn
from torch.nn import functional

import faigfast
from faigfast.io import atomic
from faigfast.zoo.ncnn import read_network
from faigfast.zoo.ncnn.bin_file import write_weights

INPUT = "Input in0 0 1 in0"


def plain(state, x):
    """The network of `convolution` in plain PyTorch."""
    x = functional.conv2d(x, state["conv1.weight"], state["conv1.bias"])
    x = functional.leaky_relu(x, 0.1)
    return functional.conv_transpose2d(x, state["up_2.weight"], state["up_2.bias"], 2, 3)


@pytest.mark.parametrize("flag", [0, FLOAT16, 0x0002C056])
def test_a_network_is_an_ordinary_module(tmp_path, flag):
    network = faigfast.load_model(convolution(tmp_path, flag=flag))
    assert type(network.conv1) is nn.Conv2d and type(network.up_2) is nn.ConvTranspose2d
    assert list(network.state_dict()) == ["conv1.weight", "conv1.bias", "up_2.weight", "up_2.bias"]
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    assert (network.scale, network.channels, network.out_channels) == (2, 3, 3)
    assert not network.training and network.conv1.weight.requires_grad
    assert "net.param" in str(network.faigfast_source)
    x = values(2, 3, 8, 7)
    torch.testing.assert_close(network(x), plain(network.state_dict(), x))
    stored = 0.2 * values(4, 3, 3, 3)
    expected = stored.half().float() if flag == FLOAT16 else stored
    assert torch.equal(network.conv1.weight, expected)


def test_names_that_modules_cannot_have_are_changed(tmp_path):
    lines = [
        INPUT,
        "PReLU forward 1 1 in0 a 0=1",
        "PReLU a.b 1 1 a b 0=1",
        "PReLU a_b 1 1 b c 0=1",
        "PReLU scale 1 1 c out0 0=1",
    ]
    path = write_pair(tmp_path / "net.param", lines, [array(values(4))])
    names = [name for name, _ in read_network(path).named_parameters()]
    assert names == ["forward_.weight", "a_b.weight", "a_b_.weight", "scale_.weight"]


@pytest.mark.parametrize(
    ("lines", "scale"),
    [
        (["Pooling p 1 1 in0 a 0=1 1=2 2=2", "PixelShuffle s 1 1 a out0 0=2"], 1),
        (["Interp i 1 1 in0 a 0=1 1=2.0 2=2.0", "Interp j 1 1 a out0 0=3 1=1.5 2=1.5"], 3),
        (["Interp i 1 1 in0 out0 0=2 1=1.5 2=1.5"], None),
        (["Interp i 1 1 in0 out0 0=2 1=2.0 2=3.0"], None),
        (["Interp i 1 1 in0 out0 0=2 3=20 4=20"], None),
        (["Permute p 1 1 in0 out0 0=1"], None),
    ],
)
def test_the_scale_follows_from_the_layers(tmp_path, lines, scale):
    assert read_network(write_pair(tmp_path / "net.param", [INPUT, *lines])).scale == scale


def test_channels_that_do_not_fit_are_named(tmp_path):
    lines = [
        "Input in0 0 1 in0 0=8 1=8 2=3",
        "Convolution a 1 1 in0 b 0=4 1=1 6=12",
        "Convolution c 1 1 b out0 0=4 1=1 6=12",
    ]
    path = write_pair(tmp_path / "net.param", lines, [array(torch.ones(12), 0)] * 2)
    with pytest.raises(ValueError, match=r"layer c .* takes 3 channels; its input has 4"):
        read_network(path)


def test_weights_go_into_a_network_of_ones_own(tmp_path):
    path = convolution(tmp_path)
    own = faigfast.load_model(path).double()
    network = faigfast.load_model(path, into=own)
    assert torch.equal(network.conv1.weight, own.conv1.weight.float())


# A pair


def test_a_pair_is_attributed_folded_as_the_reference_does(tmp_path):
    a, b = convolution(tmp_path, "a"), convolution(tmp_path, "b", FLOAT16, seed=7)
    baseline, target = faigfast.load_pair(a, b)
    x, gt = values(2, 3, 9, 10, seed=1), values(2, 3, 10, 12, seed=2)
    exact = faigfast.attribute(
        *(net.double() for net in faigfast.load_pair(a, b)),
        (x.double(), gt.double()),
        steps=5,
        backend="reference",
    )
    for backend in ("auto", "torch"):
        result = faigfast.attribute(baseline, target, (x, gt), steps=5, backend=backend)
        assert not [note for note in result.notes if "point by point" in note or "loop" in note]
        error = (result.scores().double() - exact.scores()).abs().sum() / exact.scores().sum()
        assert error < 1e-5
    assert list(exact.index.layers) == ["conv1.weight", "up_2.weight"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("-23310=1,0.1", "-23310=1,0.2", "parameters"),
        ("Input in0 0 1 in0", "Input in0 0 1 in0 0=9", None),
        ("in0 a 0=4", "in0 b 0=4", None),
        ("9=2 -23310=1,0.1", "9=1", "parameters"),
        ("Deconvolution", "DeconvolutionDepthWise", "type"),
        ("conv1 ", "other ", "'other.weight'"),
    ],
)
def test_pairs_of_other_layers_are_refused(tmp_path, old, new, what):
    a, b = convolution(tmp_path, "a"), convolution(tmp_path, "b")
    b.write_text(b.read_text().replace(old, new).replace("1 1 a out0", f"1 1 {new[4]} out0")
                 if old.startswith("in0") else b.read_text().replace(old, new))  # fmt: skip
    if what is None:
        faigfast.load_pair(a, b)
        return
    with pytest.raises(ValueError, match=f"the networks differ: .*{what}"):
        faigfast.load_pair(a, b)


# Writing


@pytest.mark.parametrize("flag", [0, FLOAT16])
def test_an_unchanged_network_is_written_back_to_the_byte(tmp_path, flag):
    path = convolution(tmp_path, flag=flag)
    faigfast.save_model(faigfast.load_model(path), tmp_path / "new.param", like=path)
    for suffix in (".param", ".bin"):
        copied = (tmp_path / f"new{suffix}").read_bytes()
        assert copied == path.with_suffix(suffix).read_bytes()


def test_every_layer_with_weights_is_written_back_to_the_byte(tmp_path):
    lines = [
        "Input in0 0 1 in0 0=5 1=4 2=4",
        "ConvolutionDepthWise a 1 1 in0 b 0=6 1=3 4=1 5=1 6=108 7=2",
        "DeconvolutionDepthWise c 1 1 b d 0=4 1=1 6=12 7=2",
        "BatchNorm e 1 1 d f 0=4 1=0.1",
        "Scale g 1 1 f h 0=4 1=1",
        "MemoryData i 0 1 j 0=1 1=1 2=4 21=0",
        "BinaryOp k 2 1 h j l",
        "PReLU m 1 1 l n 0=4",
        "InnerProduct o 1 1 n out0 0=3 1=1 2=240 9=4",
    ]
    arrays = [
        array(values(108), 0),
        array(values(6)),
        array(values(12), FLOAT16),
        *(array(values(4).abs()) for _ in range(6)),
        array(values(4), FLOAT16),
        array(values(4)),
        array(values(240), 0),
        array(values(3)),
    ]
    path = write_pair(tmp_path / "net.param", lines, arrays)
    network = faigfast.load_model(path)
    assert network(values(1, 4, 4, 5)).shape == (1, 3)
    faigfast.save_model(network, tmp_path / "new.param", like=path)
    assert (tmp_path / "new.bin").read_bytes() == b"".join(arrays)


def test_rounding_to_float16_is_reported_and_overflow_refused(tmp_path, caplog):
    path = convolution(tmp_path, flag=FLOAT16)
    network = faigfast.load_model(path)
    with torch.no_grad():
        network.conv1.weight.mul_(1 / 3)
        network.conv1.bias.mul_(1 / 3)
    with caplog.at_level(logging.WARNING, "faigfast"):
        faigfast.save_model(network, tmp_path / "new.param", like=path)
    assert "rounded to float16" in caplog.text
    written = faigfast.load_model(tmp_path / "new.param")
    assert torch.equal(written.conv1.weight, network.conv1.weight.half().float())
    assert torch.equal(written.conv1.bias, network.conv1.bias)
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] = 70_000
    before = (tmp_path / "new.bin").read_bytes()
    with pytest.raises(ValueError, match=r"holds 70000 in 'conv1\.weight'.*float16"):
        faigfast.save_model(network, tmp_path / "new.param", like=path)
    assert (tmp_path / "new.bin").read_bytes() == before


def test_masked_filters_are_written(tmp_path):
    a, b = convolution(tmp_path, "a", FLOAT16), convolution(tmp_path, "b", FLOAT16, seed=7)
    baseline, target = faigfast.load_pair(a, b)
    x, gt = values(1, 3, 9, 10, seed=1), values(1, 3, 10, 12, seed=2)
    result = faigfast.attribute(baseline, target, (x, gt), steps=2)
    masked = result.top("lq", 0.5).swap(baseline, target)
    faigfast.save_model(masked, tmp_path / "masked.param", like=b)
    written = faigfast.load_model(tmp_path / "masked.param")
    assert torch.equal(written(x), masked(x))
    for suffix in (".pth", ".safetensors"):
        faigfast.save_model(masked, tmp_path / f"masked{suffix}", like=b)
        again = faigfast.load_model(tmp_path / f"masked{suffix}", into=target)
        assert torch.equal(again(x), masked(x))


def test_what_cannot_be_written(tmp_path):
    path = convolution(tmp_path)
    network = faigfast.load_model(path)
    with pytest.raises(ValueError, match=r"new\.param needs a network's layers.*`like`"):
        faigfast.save_model(network, tmp_path / "new.param")
    faigfast.save_model(network, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net\.pth\) is no ncnn network; expected a \.param"):
        faigfast.save_model(network, tmp_path / "new.param", like=tmp_path / "net.pth")
    with pytest.raises(ValueError, match="the networks differ"):
        faigfast.save_model(nn.Conv2d(3, 3, 3), tmp_path / "new.param", like=path)
    assert not (tmp_path / "new.param").exists() and not (tmp_path / "new.bin").exists()


def test_weights_come_before_layers_and_nothing_is_left(tmp_path, monkeypatch):
    path = convolution(tmp_path)
    network = faigfast.load_model(path)
    moved = []
    replace = os.replace
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (moved.append(b.suffix), replace(a, b)))
    faigfast.save_model(network, tmp_path / "new.param", like=path)
    assert moved == [".bin", ".param"]
    moved.clear()
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(ValueError, match=r"folder\.bin cannot be written"):
        faigfast.save_model(network, tmp_path / "folder.param", like=path)
    assert moved == []
    assert not (tmp_path / "folder.param").exists()
    assert not list(tmp_path.glob(f"{atomic.TEMPORARY}*"))


def test_no_weights_at_all(tmp_path):
    path = write_pair(tmp_path / "net.param", [INPUT, "ReLU r 1 1 in0 out0"])
    network = read_network(path)
    assert torch.equal(network(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))
    write_weights(tmp_path / "empty.bin", [])
    assert (tmp_path / "empty.bin").read_bytes() == b""


# The functions that everybody calls


def test_load_model_names_what_is_wrong(tmp_path):
    path = convolution(tmp_path, flag=FLOAT16)
    (tmp_path / "net.param.bin").write_bytes(b"\xdd\x85\x76\x00\x03\0\0\0")
    os.mkfifo(tmp_path / "pipe.param")
    for name, message in (
        ("net.bin", r"weights of ncnn without the layers.*net\.param"),
        ("net.param.bin", "binary .param.bin file"),
        ("pipe.param", "named pipe"),
    ):
        with pytest.raises(ValueError, match=message):
            faigfast.load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing\.param"):
        faigfast.load_model(tmp_path / "missing.param")
    with pytest.raises(ValueError, match=r"no key for .*net\.param, which has no entries"):
        faigfast.load_model(path, key="params")
    with pytest.raises(ValueError, match="the networks differ: 'conv1"):
        faigfast.load_model(path, into=nn.Conv2d(3, 4, 3))
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*net\.bin"):
        faigfast.load_pair(path, path)


def test_load_model_gives_other_types(tmp_path):
    path = convolution(tmp_path)
    network = faigfast.load_model(path, dtype="float64")
    assert network.conv1.weight.dtype == network.up_2.bias.dtype == torch.float64
    faigfast.save_model(network, tmp_path / "new.param", like=path)
    assert (tmp_path / "new.bin").read_bytes() == path.with_suffix(".bin").read_bytes()
