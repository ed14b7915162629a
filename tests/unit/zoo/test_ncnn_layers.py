"""Every type of layer, and what its parameters change, against ncnn itself."""

import copy
import pickle

import pytest
import torch
from cases.ncnn_files import FLOAT16, array, output_of_ncnn, values, write_pair

from faigfast.zoo.ncnn import read_network
from faigfast.zoo.ncnn.steps import BUILDERS

ncnn = pytest.importorskip("ncnn")
IMAGE = (4, 9, 7)
INPUT = "Input in0 0 1 in0"


def layer(kind, parameters="", more=()):
    """One layer from in0 to out0."""
    return [INPUT, f"{kind} layer 1 1 in0 out0 {parameters}", *more]


def convolution(outputs, inputs, kernel, flag=0, bias=True, kind="Convolution", text="", groups=1):
    h, w = kernel
    count = outputs * inputs // groups * h * w
    line = f"0={outputs} 1={w} 11={h} 5={int(bias)} 6={count} {text}"
    line += f" 7={groups}" if kind.endswith("DepthWise") else ""
    arrays = [array(values(count, seed=1), flag)] + [array(values(outputs, seed=2))] * bias
    return layer(kind, line), arrays


POINTWISE = {
    "relu": layer("ReLU"),
    "leaky relu": layer("ReLU", "0=0.2"),
    "clip": layer("Clip", "0=-0.5 1=0.7"),
    "clip below": layer("Clip", "0=0.0"),
    "sigmoid": layer("Sigmoid"),
    "tanh": layer("TanH"),
    "mish": layer("Mish"),
    "swish": layer("Swish"),
    "absolute": layer("AbsVal"),
    "hard sigmoid": layer("HardSigmoid", "0=0.16666 1=0.5"),
    "hard swish": layer("HardSwish"),
    "elu": layer("ELU", "0=0.7"),
    "gelu": layer("GELU"),
    "fast gelu": layer("GELU", "0=1"),
    "dropout": layer("Dropout", "0=0.5"),
    "noop": layer("Noop"),
    "square": layer("UnaryOp", "0=4"),
    "exponential": layer("UnaryOp", "0=7"),
    "number added": layer("BinaryOp", "0=0 1=1 2=0.3"),
    "number minus": layer("BinaryOp", "0=7 1=1 2=0.3"),
    "number divided": layer("BinaryOp", "0=8 1=1 2=0.3"),
    "maximum with a number": layer("BinaryOp", "0=4 1=1 2=0.3"),
    "minimum with a number": layer("BinaryOp", "0=5 1=1 2=0.3"),
}
SPATIAL = {
    "mean of the image": layer("Pooling", "0=1 4=1"),
    "maximum of the image": layer("Pooling", "0=0 4=1"),
    "max pool, full": layer("Pooling", "0=0 1=3 2=2"),
    "mean pool, full": layer("Pooling", "0=1 1=3 2=2 3=1"),
    "mean pool that counts padding": layer("Pooling", "0=1 1=3 2=2 3=1 6=1 5=1"),
    "mean pool, valid": layer("Pooling", "0=1 1=3 11=2 2=2 3=1 5=1"),
    "max pool, same upper": layer("Pooling", "0=0 1=3 2=2 5=2"),
    "mean pool, same lower": layer("Pooling", "0=1 1=4 2=2 5=3"),
    "adaptive mean": layer("Pooling", "0=1 7=1 8=3 18=4"),
    "adaptive maximum of rows": layer("Pooling", "0=0 7=1 8=2 18=-233"),
    "constant border": layer("Padding", "0=1 1=2 2=3 3=4 4=0 5=0.7"),
    "copied border": layer("Padding", "0=1 1=2 2=3 3=1 4=1"),
    "reflected border": layer("Padding", "0=1 1=2 2=3 3=1 4=2"),
    "border of channels": layer("Padding", "0=1 1=1 2=1 3=1 4=0 5=0.5 7=1 8=2"),
    "crop of ranges": layer("Crop", "-23309=2,1,2 -23310=2,-1,-2 -23311=2,-2,-1"),
    "crop of channels": layer("Crop", "9=1, 10=3, 11=0,"),
    "crop of all axes": layer("Crop", "9=1,2,1 10=-233,-233,5"),
    "crop of sizes": layer("Crop", "0=1 1=2 2=1 3=4 4=-233 5=2"),
    "crop of margins": layer("Crop", "0=1 1=1 6=1 7=2 3=-233 4=-233 5=-233"),
    "nearest": layer("Interp", "0=1 1=2.0 2=3.0"),
    "nearest smaller": layer("Interp", "0=1 1=0.5 2=0.75"),
    "bilinear": layer("Interp", "0=2 1=2.0 2=2.0"),
    "bilinear, corners aligned": layer("Interp", "0=2 1=2.0 2=3.0 6=1"),
    "bilinear to a size": layer("Interp", "0=2 3=5 4=11"),
    "bicubic": layer("Interp", "0=3 1=4.0 2=4.0"),
    "bicubic smaller": layer("Interp", "0=3 1=0.75 2=0.75"),
    "pixel shuffle": layer("PixelShuffle", "0=2"),
    "pixel shuffle, outputs last": layer("PixelShuffle", "0=2 1=1"),
    "flatten": layer("Flatten"),
    "reshape to a matrix": layer("Reshape", "0=-1 1=4"),
    "reshape to an image": layer("Reshape", "0=7 1=3 2=-1"),
    "reshape that keeps": layer("Reshape", "0=0 1=-1 2=2"),
    "reshape to a vector": layer("Reshape", "0=-1"),
    **{f"permutation {order}": layer("Permute", f"0={order}") for order in range(6)},
}
SEVERAL = {
    "slices of sizes": ["Slice s 1 2 in0 a b -23300=2,1,-233 1=0", "BinaryOp m 2 1 b a out0 0=2"],
    "slices of cuts": ["Slice s 1 2 in0 a b 1=1 2=3,", "Concat c 2 1 b a out0 0=1"],
    "concatenation of columns": ["Split s 1 2 in0 a b", "Concat c 2 1 a b out0 0=-1"],
    "weighted sum": ["Split s 1 2 in0 a b", "Eltwise e 2 1 a b out0 0=1 -23301=2,0.2,1.0"],
    "product": ["Split s 1 3 in0 a b c", "Eltwise e 3 1 a b c out0 0=0"],
    "maximum": ["Split s 1 2 in0 a b", "TanH t 1 1 b d", "Eltwise e 2 1 a d out0 0=2"],
    "difference": ["Split s 1 2 in0 a b", "TanH t 1 1 b d", "BinaryOp e 2 1 a d out0 0=1"],
    "channels times": [
        "Split s 1 2 in0 a b", "Pooling p 1 1 b d 0=1 4=1", "Scale e 2 1 a d out0 0=-233"],
    "vector of channels": [
        "Split s 1 2 in0 a b", "Pooling p 1 1 b d 0=1 4=1", "BinaryOp e 2 1 d a out0 0=7"],
    "crop like another": [
        "Split s 1 2 in0 a b", "Pooling p 1 1 b d 0=1 1=3 2=2", "Crop e 2 1 a d out0 0=2 1=3"],
    "resized vector": ["Pooling p 1 1 in0 d 0=1 4=1", "Interp e 1 1 d out0 0=2 3=4 4=5"],
}  # fmt: skip
WEIGHTED = {
    "convolution": convolution(5, 4, (3, 3)),
    "float16": convolution(5, 4, (3, 3), FLOAT16),
    "float16, odd count": convolution(5, 3, (1, 1), FLOAT16),
    "padded": convolution(5, 4, (3, 3), text="4=1"),
    "uneven": convolution(5, 4, (3, 2), bias=False, text="4=1 15=2 14=0 16=3 3=2 13=1 2=2 12=1"),
    "padded by a value": convolution(5, 4, (3, 3), text="4=1 18=0.5"),
    "same upper": convolution(5, 4, (3, 4), text="4=-233 3=2"),
    "same lower": convolution(5, 4, (4, 3), text="4=-234 3=2"),
    "grouped": convolution(6, 4, (3, 3), kind="ConvolutionDepthWise", groups=2),
    "depthwise": convolution(4, 4, (3, 3), kind="ConvolutionDepthWise", groups=4, text="4=1"),
    "transposed": convolution(5, 4, (4, 4), kind="Deconvolution", text="3=2 4=1"),
    "transposed, uneven": convolution(
        5, 4, (3, 4), kind="Deconvolution", text="3=2 13=3 4=1 15=2 14=0 16=1 18=1 19=2"
    ),
    "transposed, dilated": convolution(5, 4, (3, 3), FLOAT16, False, "Deconvolution", "2=2"),
    "transposed, grouped": convolution(6, 4, (3, 3), kind="DeconvolutionDepthWise", groups=2),
    "transposed, depthwise": convolution(4, 4, (2, 2), 0, True, "DeconvolutionDepthWise", "3=2", 4),
    **{
        f"activation {kind}": convolution(5, 4, (3, 3), text=f"9={kind} {text}")
        for kind, text in enumerate(
            ["", "-23310=1,0.1", "10=-0.5,0.5", "", "", "10=0.2,0.5"], start=1
        )
    },
    "inner product": (
        layer("InnerProduct", "0=3 1=1 2=756 9=4"),
        [array(0.1 * values(756), 0), array(values(3, seed=2))],
    ),
    "slopes": (layer("PReLU", "0=4"), [array(values(4))]),
    "one slope": (layer("PReLU", "0=1"), [array(values(1))]),
    "factors": (layer("Scale", "0=4 1=1"), [array(values(4)), array(values(4, seed=3))]),
    "norm": (
        layer("BatchNorm", "0=4 1=0.001"),
        [array(values(4, seed=s).abs()) for s in range(4)],
    ),
    "constant image": (
        [INPUT, "MemoryData m 0 1 a 0=7 1=9 2=4", "BinaryOp b 2 1 in0 a out0 0=0"],
        [array(values(4, 9, 7))],
    ),
    "constant channels": (
        [INPUT, "MemoryData m 0 1 a 0=1 1=1 2=4 21=0", "BinaryOp b 2 1 in0 a out0 0=1"],
        [array(values(4), FLOAT16)],
    ),
    "constant beside an image": (
        [INPUT, "MemoryData m 0 1 a 0=7 1=9 2=2", "Concat c 2 1 in0 a out0"],
        [array(values(2, 9, 7))],
    ),
}
CASES = {
    **{name: (lines, []) for name, lines in (POINTWISE | SPATIAL).items()},
    **{name: ([INPUT, *lines], []) for name, lines in SEVERAL.items()},
    **WEIGHTED,
}


@pytest.mark.parametrize("name", CASES)
def test_every_layer_gives_ncnns_values(tmp_path, name):
    lines, arrays = CASES[name]
    path = write_pair(tmp_path / "net.param", lines, arrays)
    network = read_network(path)
    channels = 3 if "odd count" in name else 4
    x = values(2, channels, *IMAGE[1:], seed=9)
    with torch.no_grad():
        y = network(x)
    for sample, result in zip(x, y, strict=True):
        expected = output_of_ncnn(path, sample)
        assert result.shape == expected.shape
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert network.out_channels in (None, y.shape[1])


@pytest.mark.parametrize("name", CASES)
def test_networks_can_be_copied_and_pickled(tmp_path, name):
    lines, arrays = CASES[name]
    network = read_network(write_pair(tmp_path / "net.param", lines, arrays))
    x = values(1, 3 if "odd count" in name else 4, *IMAGE[1:], seed=9)
    with torch.no_grad():
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(network(x), twin(x))


def test_every_type_is_among_the_cases():
    kinds = {line.split()[0] for lines, _ in CASES.values() for line in lines}
    assert set(BUILDERS) <= kinds
