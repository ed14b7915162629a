"""A change of one input channel: the C++ kernel beside its plain twin and a whole convolution."""

import pytest
import torch
from torch.nn import functional as F

from faigfast.ops.one_channel import cpu as _cpu  # noqa: F401  its kernel joins the table
from faigfast.ops.one_channel.operation import one_channel
from faigfast.ops.registry import KERNELS, Use, using

SAME = ([1, 1], [1, 1], [1, 1], False, [0, 0])


def case(samples=3, inputs=4, outputs=8, shuffle=1, side=6, residual=False, seed=0):
    """Images that differ in channel 1 from a known one, and the whole convolution's arguments."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1, inputs, side, side + 1, generator=g)
    change = torch.randn(samples, 1, side, side + 1, generator=g)
    w = torch.randn(outputs * shuffle**2, inputs, 3, 3, generator=g)
    known = F.conv2d(x, w, padding=1)
    changed = x.repeat(samples, 1, 1, 1)
    changed[:, 1:2] += change
    full = F.conv2d(changed, w, padding=1)
    if shuffle > 1:
        known, full = (F.pixel_shuffle(z, shuffle) for z in (known, full))
    rest = torch.randn(known.shape, generator=g) if residual else None
    return change, w[:, 1:2], known, rest, full


@pytest.mark.parametrize("backend", ["cpu", ""])
@pytest.mark.parametrize("shuffle", [1, 2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu", "gelu"])
def test_it_is_the_convolution_of_the_changed_image(backend, shuffle, residual, activation):
    change, w, known, rest, full = case(shuffle=shuffle, residual=residual, outputs=5)
    acts = {"none": lambda z: z, "relu": F.relu, "gelu": F.gelu}
    acts["leaky_relu"] = lambda z: F.leaky_relu(z, 0.1)
    expected = 0.5 * acts[activation](full) + (0 if rest is None else rest)
    with using(Use(backend)):
        y = one_channel(change, w, known, rest, None, *SAME, activation, 0.1, 0.5, shuffle)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_the_kernel_serves_what_it_can():
    change, w, known, *_ = case()
    given = (change, w, known, None, None, *SAME, "relu", 0.0, 1.0, 1)
    refuses = {kernel.name: kernel.refuses for kernel in KERNELS["one_channel"]}["simd"]
    assert not refuses(*given)
    others = {
        "float64": (change.double(), *given[1:]),
        "3×3": (change, w[..., :1, :1], *given[2:]),
        "stride": (*given[:5], [2, 2], *given[6:]),
        "slopes": (*given[:4], torch.ones(8), *given[5:]),
        "gelu": (*given[:10], "gelu", *given[11:]),
    }
    assert all(refuses(*other) for other in others.values())


def test_prelu_and_other_geometry_by_pytorch():
    g = torch.Generator().manual_seed(2)
    x, w = torch.randn(1, 3, 8, 8, generator=g), torch.randn(4, 3, 5, 5, generator=g)
    change, slopes = torch.randn(2, 1, 8, 8, generator=g), torch.rand(4, generator=g)
    changed = x.repeat(2, 1, 1, 1)
    changed[:, :1] += change
    geometry = ([2, 2], [2, 2], [1, 1], False, [0, 0])
    with using(Use("cpu")):
        y = one_channel(
            change, w[:, :1], F.conv2d(x, w, None, 2, 2), None, slopes, *geometry, "prelu", 0.0,
            1.0, 1,
        )  # fmt: skip
    torch.testing.assert_close(y, F.prelu(F.conv2d(changed, w, None, 2, 2), slopes))
