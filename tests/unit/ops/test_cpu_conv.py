"""The C++ kernels of path convolutions, most of them 3×3, in every instruction set."""

import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from cases.cpu_kernels import BOUND, assert_right, kernels
from cases.path_operations import (
    arguments,
    assert_near,
    conv_case,
    errors,
    expected,
    explain,
    operation_values,
    poisoned,
)

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.conv.cpu_queue import Queue
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.conv.spec import ConvSpec, PathParameters
from faigfast.ops.registry import Use, using

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
SIZES = [(1, 1), (1, 9), (6, 1), (2, 3), (4, 4), (7, 5), (8, 8), (9, 17)]
CHANNELS = [(1, 1), (3, 5), (3, 64), (64, 3), (8, 16), (17, 33), (48, 20)]


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_and_channels(size, channels, isa):
    assert_right(conv_case(size=size, channels=channels, activation="relu"))


@pytest.mark.parametrize("channels", [(64, 64), (100, 48), (16, 256), (256, 16)], ids=str)
@pytest.mark.parametrize("size", [(47, 31), (12, 50)], ids=str)
def test_larger(size, channels, isa):
    assert_right(conv_case(size=size, channels=channels, points=1, images=2))


# Few channels on one side: rows in strips, images that begin inside a thread's share.
THIN = [(3, 64), (64, 3), (1, 40), (40, 1), (4, 17), (17, 4), (2, 2), (5, 64)]


@pytest.mark.parametrize("channels", THIN, ids=str)
@pytest.mark.parametrize("size", [(1, 97), (3, 48), (7, 50)], ids=str)
def test_few_channels_on_one_side(size, channels, isa):
    sizes = dict(size=size, channels=channels, points=2, images=3)
    assert_right(conv_case(**sizes, activation="relu"))
    assert_right(conv_case(**sizes, activation="leaky_relu", layout="strided"))
    assert_right(conv_case(**sizes, residual="shared", scale=0.5, shared=True, samples=2))


CASES = {
    "many points": dict(points=9, images=1, size=(4, 3)),
    "many images": dict(points=2, images=7, size=(4, 3)),
    "samples": dict(samples=3, images=2, points=2),
    "shared": dict(shared=True, points=3, images=2),
    "no bias": dict(bias=None),
    "bias stands still": dict(bias="still"),
    "weight stands still": dict(weight="still"),
    "channels last": dict(layout="channels last"),
    "strided": dict(layout="strided"),
    "images alike": dict(layout="images alike", points=2, images=3),
    "gradients alike": dict(alike=True, points=3),
    "more points than weights that fit at once": dict(
        points=5, images=1, channels=(256, 256), size=(2, 2)
    ),
}
ACTIVATIONS = ["none", "relu", "leaky_relu", "prelu", "sigmoid", "silu", "gelu"]


@pytest.mark.parametrize("name", CASES)
def test_cases(name, isa):
    assert_right(conv_case(**CASES[name], activation="leaky_relu"))
    assert_right(conv_case(**CASES[name], residual="points", scale=0.2))


@pytest.mark.parametrize("residual", [None, "points", "shared"])
@pytest.mark.parametrize("scale", [1.0, -0.3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused(activation, scale, residual, isa):
    options = dict(activation=activation, scale=scale, residual=residual)
    assert_right(conv_case(**options, size=(5, 6), channels=(4, 9)))


@pytest.mark.parametrize("slopes, single", list(product(["moves", "still"], [False, True])))
def test_slopes(slopes, single, isa):
    assert_right(conv_case(activation="prelu", slopes=slopes, single=single, points=3))


@pytest.mark.parametrize("factor, outputs", [(2, 12), (2, 64), (3, 9), (4, 32)])
@pytest.mark.parametrize("activation", ["none", "leaky_relu", "sigmoid", "silu"])
def test_shuffled(activation, factor, outputs, isa):
    options = dict(channels=(5, outputs), shuffle=factor, activation=activation)
    assert_right(conv_case(**options, size=(5, 6)))
    assert_right(conv_case(**options, size=(9, 4), scale=0.5, residual="points"))


# Parts of inputs, of outputs, of both; even, and with a rest.
PARTS = [(97, 9), (130, 70), (9, 147), (200, 212)]


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("channels", PARTS, ids=str)
def test_parts(channels, points, isa):
    sizes = dict(channels=channels, size=(9, 6), points=points, images=2)
    assert_right(conv_case(**sizes, activation="prelu", slopes="moves"))
    assert_right(conv_case(**sizes, activation="relu", scale=0.5, residual="points"))


@pytest.mark.parametrize("channels, shuffle", [((100, 256), 2), ((20, 1152), 3)])
def test_parts_of_shuffled(channels, shuffle, isa):
    assert_right(conv_case(channels=channels, shuffle=shuffle, size=(5, 6), activation="relu"))


STREAMED = {
    "depthwise": dict(channels=(32, 32), groups=32, kernel=5, residual="points"),
    "stride": dict(channels=(48, 32), stride=2, residual="points"),
    "groups": dict(channels=(48, 48), groups=2, residual="points"),
    "kernel of one pixel": dict(channels=(48, 32), kernel=1, padding=0, residual="points"),
    "larger kernel": dict(channels=(16, 32), kernel=5, padding=1, residual="points"),
    "beyond the image": dict(channels=(32, 16), kernel=8, padding=7),
    "residual": dict(channels=(48, 48), residual="points", activation="leaky_relu"),
    "parts": dict(channels=(112, 32), scale=0.5),
    "shuffled": dict(channels=(32, 64), shuffle=2, scale=0.5),
    "no whole lines": dict(channels=(33, 47), residual="shared"),
    "samples": dict(channels=(16, 32), samples=2, images=2, shared=True),
    "a point of all threads": dict(channels=(112, 32), points=1),
}


@pytest.fixture
def stream():
    usual = _extension.module.streaming()
    yield partial(_extension.module.set_streaming, from_bytes=1)
    _extension.module.set_streaming(usual)


@pytest.mark.parametrize("name", STREAMED)
def test_large_images_give_the_same_bits_however_they_are_streamed(name, isa, stream):
    case = conv_case(**{"size": (37, 26), "images": 1} | STREAMED[name]).to(torch.float32)
    results = []
    for way in (False, True):
        stream(way)
        assert _extension.module.streaming() is way
        with kernels(), poisoned():
            results.append(operation_values(case))
    assert_near(results[0], expected(case.to(torch.float64)), BOUND)
    assert all(set(errors(one, results[0]).values()) == {0.0} for one in results)


SUMS = {
    "3×3": dict(),
    "1×1": dict(kernel=1, padding=0),
    "depthwise": dict(groups=8),
    "stride": dict(stride=2),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_many_pixels(name, isa):
    options = dict(channels=(8, 8), size=(160, 150), points=2, images=1) | SUMS[name]
    assert_right(conv_case(**options, activation="prelu", slopes="moves"))


THREADS = {
    "one block": dict(),
    "parts": dict(channels=(100, 140)),
    "7×7": dict(kernel=7, padding=3),
    "1×1": dict(kernel=1, padding=0),
    "depthwise": dict(channels=(20, 20), groups=20),
    "stride": dict(stride=2),
    "transposed": dict(transposed=True, stride=2),
}


@pytest.mark.parametrize("name", THREADS)
def test_threads_change_nothing_but_rounding(name, isa):
    sizes = dict(size=(23, 18), channels=(20, 24), images=3) | THREADS[name]
    case = conv_case(**sizes, activation="relu").to(torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with kernels():
                results.append([operation_values(case) for _ in range(2)])
    finally:
        torch.set_num_threads(before)
    for once, again in results:
        assert set(errors(once, again).values()) == {0.0}
        assert_near(once, results[0][0], 5e-6)
        # These are not sums over threads.
        assert torch.equal(once.y, results[0][0].y) and torch.equal(once.gx, results[0][0].gx)


@pytest.mark.parametrize("shift", range(1, 4))
def test_tensors_need_no_alignment(shift, isa):
    case = conv_case(layout="channels last", points=1, images=1).to(torch.float32)
    memory = torch.empty(case.x.numel() + shift)
    moved = memory[shift:].view(case.x.movedim(3, -1).shape)
    moved.copy_(case.x.movedim(3, -1))
    (_, given), _ = arguments(case)
    with kernels():
        y, _ = conv(*given)
        other, _ = conv(moved.movedim(-1, 3).flatten(1, 2), *given[1:])
    assert torch.equal(y, other)


REFUSED = {
    "float64": dict(),
    "kernel is 3, not of two": dict(size=(9,)),
    "4 channels to a group": dict(channels=(4, 20), kernel=5, padding=2),
    "1 channel to a group": dict(channels=(6, 18), groups=6),
    "shuffled, which a kernel of 1×1": dict(kernel=1, padding=0, channels=(3, 8), shuffle=2),
    "shuffled, which a kernel of 3×3": dict(stride=2, channels=(3, 8), shuffle=2),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_it_refuses_runs_plainly_and_is_told(why):
    case = conv_case(**REFUSED[why])
    case = case if why == "float64" else case.to(torch.float32)
    for name, given in arguments(case):
        assert why in explain(name, *given)["simd"]
    use = Use("cpu")
    with using(use):
        result = operation_values(case)
    assert len(use.refused) == 2 and all(why in reason for reason in use.refused)
    assert_near(result, operation_values(case), 0)


def test_without_the_extension_it_refuses(monkeypatch):
    monkeypatch.setattr(_extension, "module", None)
    monkeypatch.setattr(_extension, "missing", "no compiler")
    (name, given), _ = arguments(conv_case().to(torch.float32))
    assert explain(name, *given)["simd"] == "the extension is missing: no compiler"


def test_it_runs_only_where_its_backend_is_in_use():
    case = conv_case(activation="relu").to(torch.float32)
    plain = operation_values(case)
    with kernels():
        fast = operation_values(case)
    assert 0 < errors(fast, plain)["y"] < 1e-5
    assert errors(operation_values(case), plain)["y"] == 0


@pytest.mark.parametrize("options", [
    dict(layout="channels last"),
    dict(points=1, images=1, layout="channels last", activation="silu"),
    dict(residual="points", scale=0.5, activation="relu", layout="channels last"),
    dict(channels=(3, 8), shuffle=2, points=1, layout="channels last"),
], ids=str)  # fmt: skip
def test_shapes_and_strides_are_those_of_the_plain_kernel(options):
    for (name, given), operation in zip(
        arguments(conv_case(**options).to(torch.float32)), (conv, conv_backward), strict=True
    ):
        plain = operation(*given)
        with kernels():
            fast = operation(*given)
        for one, other in zip(plain, fast, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype, name
            assert [s for s, n in zip(one.stride(), one.shape, strict=True) if n > 1] == [
                s for s, n in zip(other.stride(), other.shape, strict=True) if n > 1
            ], name


def test_infinities_and_nan_do_not_stay_hidden(isa):
    """Values that are not finite come out as such, near where they went in."""
    for value in (torch.nan, torch.inf, 3e38):
        case = conv_case(points=1, images=1, size=(12, 12), channels=(4, 8), activation="relu")
        case = case.to(torch.float32)
        case.x[0, 0, 0, :, 6, 6] = value
        with kernels():
            y = operation_values(case).y
        assert not y[..., 5:8, 5:8].isfinite().all()
        assert y[..., :3, :3].isfinite().all() and y[..., 9:, 9:].isfinite().all()


KEPT = """
from faigfast.backend.cpu import extension
from faigfast.backend.cpu.allocator import empty
kept, size = extension.module.cached, 1 << 20
images = [empty(size) for _ in range(3)]
print(kept())
del images
print(kept())
larger = empty(3 * size)
print(kept())
del larger
extension.module.free_cached()
print(kept())
"""


def test_memory_is_kept_serves_images_of_other_sizes_and_can_be_given_back():
    # In a process of its own, where nobody else holds memory.
    command = [sys.executable, "-c", KEPT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(line) for line in result.stdout.split()] == [0, 3 << 22, 0, 0]


def test_kernels_give_their_scratch_memory_back():
    case = conv_case().to(torch.float32)
    with kernels():
        operation_values(case)
    assert _extension.module.cached() > 0


def test_large_layers_stream_where_the_third_cache_is_small():
    file = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    kibibytes = int(file.read_text().strip().rstrip("K")) if file.is_file() else 0
    assert _extension.module.streaming() is (kibibytes < 128 << 10)


@pytest.mark.parametrize("channels, size", [
    ((3, 8), (9, 6)), ((16, 20), (9, 6)), ((100, 140), (9, 6)), ((64, 8), (53, 60)),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("before", [("relu", 0.0), ("leaky_relu", 0.2)])
def test_a_gradient_passes_the_activation_that_gave_x(before, channels, size, isa, stream):
    stream(size[0] > 9)
    x = torch.randn(2, 3, *size, channels[0], generator=torch.Generator().manual_seed(0))
    case = conv_case(channels=channels, size=size, points=2, images=3).to(torch.float32)
    (_, _), (_, given) = arguments(case)
    gy, more = given[0].movedim(2, -1).contiguous(), torch.randn_like(x)
    parameters = PathParameters(*given[3:5], None, None, None, None, given[8])
    layer = x, parameters, more, 3, [True, False, False, False]
    queue = Queue()
    with kernels(), poisoned():
        plain, passed = (
            queue.convolve_backward(gy, None, *layer, ConvSpec(), one)[0]
            for one in (("none", 0.0), before)
        )
    queue.run()
    assert torch.equal(passed, torch.where(x > 0, plain, plain * before[1]))


def test_weights_are_packed_once_a_call_where_they_last(isa):
    (_, given), (_, given_back) = arguments(conv_case().to(torch.float32))
    use = Use("cpu")
    with using(use):
        for _ in range(2):
            conv(*given)
            conv_backward(*given_back)
        # w0 with Δ: forward, and turned round.
        assert len(use.packed_weights) == 2
        conv(*given[:2], None, *given[3:])
    assert len(use.packed_weights) == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("points", [1, 2, 5])
def test_points_of_a_thread_s_own_and_shared_ones(points, threads, isa):
    """Several parts of columns, too: U of 64 channels is 600 KB."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_right(conv_case(points=points, images=1, size=(9, 10), channels=(64, 150)))
    finally:
        torch.set_num_threads(before)
