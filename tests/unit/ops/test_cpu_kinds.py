"""The C++ kernels of all layers but 3×3: larger kernels, 1×1, linear, depthwise, any other."""

import pytest
from cases.cpu_kernels import assert_right
from cases.path_operations import conv_case, linear_case

from faigfast.backend.cpu import extension as _extension

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)

KERNELS = {
    "2×2": dict(kernel=2, padding=0),
    "3×3, nothing around": dict(padding=0),
    "3×3, more around": dict(padding=2),
    "2×2, few channels": dict(kernel=2, padding=1, channels=(3, 8)),
    "2×3, few come out": dict(kernel=(2, 3), padding=1, channels=(8, 3)),
    "5×5": dict(kernel=5, padding=2),
    "7×7": dict(kernel=7, padding=3),
    "9×9": dict(kernel=9, padding=4),
    "9×9, nothing around": dict(kernel=9, padding=0, size=(12, 11)),
    "11×11": dict(kernel=11, padding=5),
    "3×5": dict(kernel=(3, 5), padding=(1, 2)),
    "4×3": dict(kernel=(4, 3), padding=(2, 0)),
    "1×3": dict(kernel=(1, 3), padding=(0, 1)),
    "8×3 on a column": dict(kernel=(8, 3), padding=(7, 1), size=(3, 1)),
    "far beyond the image": dict(kernel=5, padding=9, size=(2, 3)),
    "shuffled": dict(kernel=5, padding=1, channels=(6, 12), shuffle=2),
    "parts": dict(kernel=5, padding=2, channels=(100, 70)),
    "few come out": dict(kernel=9, padding=4, channels=(20, 3)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_other_sizes(name, isa):
    options = dict(channels=(7, 9), size=(9, 10)) | KERNELS[name]
    assert_right(conv_case(**options, activation="prelu", single=True))
    assert_right(conv_case(**options, activation="relu", scale=0.5, residual="points"))
    assert_right(conv_case(**options, samples=2, shared=True, layout="strided", bias=None))


def assert_all_right(options):
    """With slopes on the line; behind a gate, scaled and added to; shared, unfused and strided."""
    assert_right(conv_case(**options, activation="prelu", slopes="moves"))
    assert_right(conv_case(**options, activation="relu", scale=0.5, residual="points"))
    still = options | dict(layout="strided", bias=None)
    assert_right(conv_case(**still, samples=2, shared=True, activation="silu"))


POINTS = {
    "as they are": dict(),
    "few channels": dict(channels=(3, 5)),
    "one pixel": dict(size=(1, 1), channels=(20, 4)),
    "one channel": dict(channels=(1, 1)),
    "whole vectors": dict(channels=(64, 128), size=(11, 13)),
    "several panels": dict(channels=(200, 212)),
    "many points": dict(points=9, images=1, size=(4, 3)),
    "many images": dict(points=2, images=7, size=(4, 3)),
    "channels last": dict(layout="channels last"),
    "stands still": dict(weight="still", bias="still"),
}


@pytest.mark.parametrize("name", POINTS)
def test_kernels_of_one_pixel(name, isa):
    options = dict(channels=(33, 47), size=(9, 10), kernel=1, padding=0) | POINTS[name]
    assert_all_right(options)


DEPTHWISE = {
    "3×3": dict(),
    "one tap": dict(kernel=1, padding=0),
    "nothing around": dict(padding=0, size=(3, 4)),
    "7×5": dict(kernel=(7, 5), padding=(3, 2)),
    "even": dict(kernel=(2, 6), padding=(1, 3)),
    "far beyond the image": dict(kernel=(3, 7), padding=(4, 9), size=(2, 3)),
    "whole vectors": dict(channels=32, size=(5, 21)),
    "two channels": dict(channels=2, size=(1, 1)),
    "many images": dict(points=2, images=7, size=(4, 3)),
    "stands still": dict(weight="still", bias="still"),
}


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(name, isa):
    options = dict(channels=19, size=(9, 10)) | DEPTHWISE[name]
    channels = options["channels"]
    options |= dict(channels=(channels, channels), groups=channels)
    assert_all_right(options)


DIRECT = {
    "stride": dict(stride=2),
    "stride, 2×2": dict(stride=2, kernel=2, padding=0),
    "stride beyond the kernel": dict(stride=(3, 4), kernel=2, padding=1),
    "stride, 1×1": dict(stride=2, kernel=1, padding=0),
    "dilation": dict(dilation=2, padding=2),
    "dilation and stride": dict(dilation=(3, 2), stride=(2, 1), padding=(1, 4)),
    "groups": dict(channels=(20, 40), groups=4),
    "groups of whole vectors": dict(channels=(32, 64), groups=2, size=(5, 60)),
    "one row of taps": dict(kernel=(1, 7), padding=(0, 3)),
    "one tap, zeros around": dict(kernel=1, padding=2),
    "several panels": dict(channels=(70, 150), stride=2, size=(6, 5)),
    "long rows": dict(stride=2, size=(2, 131)),
    "far beyond the image": dict(stride=2, kernel=(3, 5), padding=7, size=(1, 2)),
    "transposed": dict(transposed=True),
    "transposed, stride": dict(transposed=True, stride=2, kernel=4, padding=1),
    "transposed, stride 3": dict(transposed=True, stride=3, kernel=9, padding=4, output_padding=1),
    "transposed, gaps": dict(transposed=True, stride=(3, 4), kernel=2, padding=0),
    "transposed, dilation": dict(transposed=True, stride=2, dilation=3, padding=2),
    "transposed, groups": dict(transposed=True, channels=(20, 40), groups=4, stride=2),
    "transposed, long rows": dict(transposed=True, stride=2, size=(2, 71), channels=(32, 16)),
    "transposed, beyond": dict(transposed=True, kernel=3, padding=(0, 3), size=(2, 6)),
}


@pytest.mark.parametrize("name", DIRECT)
def test_any_other_convolution(name, isa):
    options = dict(channels=(17, 9), size=(9, 10)) | DIRECT[name]
    assert_all_right(options)


LINEAR = {
    "as they are": dict(),
    "one row": dict(rows=1, features=(100, 3)),
    "many rows": dict(rows=131, features=(64, 48)),
    "one image": dict(points=3, images=1),
    "shared": dict(shared=True),
    "no bias": dict(bias=None),
    "weight stands still": dict(weight="still"),
    "bias stands still": dict(bias="still"),
    "strided": dict(layout="strided"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers(name, isa):
    assert_right(linear_case(**dict(features=(33, 47), rows=9) | LINEAR[name]))
