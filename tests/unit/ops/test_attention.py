"""Attention as one operation: its C++ kernel, and where a graph's softmax becomes it."""

import pytest
import torch
from cases.path_operations import explain
from torch import nn

import faigfast
from faigfast.backend.cpu import extension as _extension
from faigfast.engine import fuse_attention as fused
from faigfast.ops.attention import cpu as cpu_attention  # noqa: F401  its kernels join the table
from faigfast.ops.attention.operation import attention, attention_backward
from faigfast.ops.registry import Use, using

needs_extension = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
# windows, heads, rows, columns, depth, width: around vectors, blocks of rows and panels
SIZES = [
    (1, 1, 1, 1, 1, 1), (2, 3, 7, 9, 3, 5), (3, 2, 49, 47, 16, 17), (1, 2, 97, 64, 24, 24),
    (2, 1, 5, 130, 10, 33), (1, 5, 64, 64, 10, 1),
]  # fmt: skip
# Of 4-D sizes: 0 where all share it.
BIASES = {"none": None, "full": (0, 1, 1, 1), "all heads": (0, 0, 1, 1), "of rows": (0, 1, 1, 0)}
MASKS = {"none": None, "full": (1, 1, 1, 1), "all heads": (1, 0, 1, 1), "of columns": (1, 0, 0, 1)}


def case(sizes, bias="full", mask="none", layout="dense", dtype=torch.float32):
    """q, k, v, bias, mask and an upstream gradient."""
    windows, heads, rows, columns, depth, width = sizes
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    def some(which):
        return which and numbers(
            *(n if kept else 1 for n, kept in zip(sizes[:4], which, strict=True))
        )

    if layout == "dense":
        q, k = numbers(windows, heads, rows, depth), numbers(windows, heads, depth, columns)
        v = numbers(windows, heads, columns, width)
    else:  # as windows and heads are cut out of pixels
        q = numbers(windows, rows, heads, depth).transpose(1, 2)
        k = numbers(windows, columns, heads, depth).permute(0, 2, 3, 1)
        v = numbers(windows, columns, heads, 2 * width).transpose(1, 2)[..., ::2]
    gy = numbers(windows, heads, rows, width)
    given = [q, k, v, some(BIASES[bias]), some(MASKS[mask])]
    return given, gy


def gradients(run, given, gy):
    given = [part if part is None else part.detach() for part in given]
    leaves = [part.requires_grad_() for part in given[:4] if part is not None]
    y = run(*given)
    return [y.detach(), *torch.autograd.grad(y, leaves, gy)]


def plain(q, k, v, bias, mask):
    scores = q @ k
    for part in (bias, mask):
        scores = scores if part is None else scores + part
    return scores.softmax(-1) @ v


def near(values, exact, bound=1e-5):
    for one, other in zip(values, exact, strict=True):
        other = other.to(one.dtype)
        assert one.shape == other.shape
        scale = torch.linalg.vector_norm(other).clamp(min=1)  # some are nothing but rounding
        assert torch.linalg.vector_norm(one - other) <= bound * scale


def fast(given, gy):
    use = Use("cpu")
    with using(use):
        values = gradients(lambda *parts: attention(*parts)[0], given, gy)
    assert not use.refused
    return values


@needs_extension
@pytest.mark.parametrize("layout", ["dense", "strided"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(sizes, layout, isa):
    given, gy = case(sizes, layout=layout)
    exact, gy64 = case(sizes, layout=layout, dtype=torch.float64)
    near(fast(given, gy), gradients(plain, exact, gy64))


@needs_extension
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("bias", BIASES)
def test_biases_and_masks(bias, mask, isa):
    given, gy = case((3, 2, 13, 21, 4, 6), bias, mask)
    exact, gy64 = case((3, 2, 13, 21, 4, 6), bias, mask, dtype=torch.float64)
    near(fast(given, gy), gradients(plain, exact, gy64))


@pytest.mark.parametrize("bias", BIASES)
def test_the_plain_twin(bias):
    given, gy = case((3, 2, 5, 7, 4, 6), bias, "full", dtype=torch.float64)
    near(
        gradients(lambda *parts: attention(*parts)[0], given, gy),
        gradients(plain, given, gy),
        1e-14,
    )


@needs_extension
def test_threads_change_nothing(isa):
    given, gy = case((5, 3, 50, 40, 8, 8), mask="full")
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(fast(given, gy))
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, results[0], strict=True))


@needs_extension
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nonfinite_masks_as_in_torch(value, isa):
    given, _ = case((2, 2, 9, 20, 4, 5), mask="full")
    given[4][1, 0, 3, 17] = value
    given[4][0, 0, 5] = value
    with using(Use("cpu")):
        y, _ = attention(*given)
    torch.testing.assert_close(y, plain(*given), equal_nan=True)


@needs_extension
def test_rows_that_are_masked_far_down_and_far_apart(isa):
    given, gy = case((2, 1, 20, 30, 4, 5), bias="none", mask="full")
    given[4][:, :, ::2] -= 1000
    given[4][:, :, :, 5:] -= 100
    exact = [part if part is None else part.double() for part in given]
    near(fast(given, gy), gradients(plain, exact, gy.double()), 3e-4)  # −1000 + x is rounded


def test_what_it_refuses():
    given, _ = case((1, 1, 2, 3, 4, 5), dtype=torch.float64)
    assert "float64" in explain("attention", *given)["simd"]


class Attention(nn.Module):
    """Windows of pixels that attend to each other, in one of the ways in which networks do."""

    def __init__(self, form, heads=2, width=16, side=4):
        super().__init__()
        self.form, self.heads, self.side = form, heads, side
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.qkv, self.norm = nn.Linear(width, 3 * width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.bias = nn.Parameter(torch.randn(heads, side**2, side**2))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, image):
        x = self.first(image)
        b, c, h, w = x.shape
        side, heads = self.side, self.heads
        x = x.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(-1, side**2, c)
        q, k, v = self.qkv(self.norm(x)).view(len(x), -1, 3, heads, c // heads).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        x = x + self.mixed(q, k, v, b).transpose(1, 2).reshape(x.shape)
        x = (x + self.mlp(x)).view(b, h // side, w // side, side, side, c)
        return image + self.last(x.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w))

    def mixed(self, q, k, v, b):
        scale = q.shape[-1] ** -0.5
        if self.form == "divided":
            return ((q @ k.mT) / 1.7).softmax(-1) @ v
        if self.form == "factor before":
            return ((q * scale) @ k.mT + self.bias).softmax(-1) @ v
        if self.form == "bias first":
            return (self.bias[None] + (q @ k.mT) * scale).softmax(3, q.dtype) @ v
        if self.form == "bias of columns":
            return (q @ k.mT + self.bias[:, :1]).softmax(-1) @ v
        if self.form == "masked in a view":
            scores = q @ k.mT + self.bias
            mask = torch.zeros(len(q) // b, 1, *scores.shape[2:])
            mask[::2, :, :, ::3] = -100
            scores = scores.view(b, len(q) // b, *scores.shape[1:]) + mask
            return scores.view(-1, *scores.shape[2:]).softmax(-1) @ v
        if self.form == "bias of the image":  # its gradient differs between windows
            return (q @ k.mT + v @ q.mT).softmax(-1) @ v
        if self.form == "temperature":
            return (q @ k.mT * self.temperature).softmax(-1) @ v
        if self.form == "fewer keys":
            return (q @ k[:, :, :9].mT).softmax(-1) @ v[:, :, :9]
        if self.form == "one softmax for all rows":
            scores = (q @ k.mT).view(len(q), self.heads, 1, -1)
            return (scores.softmax(-1) @ v.repeat(1, 1, v.shape[2], 1)).expand_as(v)
        if self.form == "rows as columns":
            scores = (q @ k[:, :, :8].mT).view(len(q), self.heads, 8, -1)
            return (scores.softmax(-1) @ v).repeat(1, 1, 2, 1)
        if self.form == "all windows":
            return ((q[:, None] @ k.mT[None]).softmax(-1) @ v[None]).mean(1)
        if self.form == "seen twice":
            weights = (q @ k.mT).softmax(-1)
            return weights @ v + weights.mean()
        assert self.form == "channels"
        return ((q.mT @ k).softmax(-1) @ v.mT).mT


FUSED = [
    "fewer keys",
    "divided",
    "factor before",
    "bias first",
    "bias of columns",
    "masked in a view",
]
APART = [
    "one softmax for all rows",
    "rows as columns",
    "all windows",
    "bias of the image",
    "temperature",
    "seen twice",
    "channels",
]


@needs_extension
@pytest.mark.parametrize("form", FUSED + APART)
def test_attribution_of_every_form(form, monkeypatch):
    torch.manual_seed(1)
    networks = [Attention(form) for _ in range(2)]
    batch = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    calls = []

    def counted(*given):
        calls.append(torch.is_grad_enabled())
        return attention(*given)

    counted.name = attention.name
    monkeypatch.setattr(fused, "attention", counted)
    result = faigfast.attribute(*networks, batch, steps=4)
    assert result.backend == "cpu" and any(calls) == (form in FUSED)
    exact = faigfast.attribute(*networks, batch, steps=4, backend="reference", precision="fp64")
    scores, expected = result.scores().double(), exact.scores()
    assert ((scores - expected).abs().sum(1) <= 1e-5 * expected.abs().sum(1)).all()
    assert not [note for note in result.notes if "point by point" in note]


def test_attribution_by_torch_alone():
    torch.manual_seed(1)
    networks = [Attention("masked in a view") for _ in range(2)]
    batch = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    result, exact = (
        faigfast.attribute(*networks, batch, steps=4, backend=backend)
        for backend in ("torch", "reference")
    )
    near([result.scores()], [exact.scores()])


def test_a_gradient_of_a_mask_is_refused():
    given, _ = case((2, 2, 3, 5, 4, 6), mask="full", dtype=torch.float64)
    given[4].requires_grad_()
    with pytest.raises(ValueError, match="not for a mask"):
        attention(*given)
    given[4] = given[4].detach()
    given[3] = torch.zeros(2, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="of each window"):
        attention(*given)


@needs_extension
def test_sizes_that_do_not_fit_are_refused_before_the_kernel():
    given, _ = case((2, 2, 3, 5, 4, 6), mask="full")
    for place in (1, 2):
        other = [*given]
        other[place] = given[place][..., :2, :].contiguous()
        with using(Use("cpu")), pytest.raises(RuntimeError, match=r"expand|size"):
            attention(*other)


def test_the_gradient_without_a_bias():
    given, gy = case((2, 2, 3, 5, 4, 6), bias="none")
    *_, summed = attention_backward(gy, *given, attention(*given)[1], False)
    assert summed.numel() == 0


@needs_extension
def test_memory_is_counted_without_a_note_of_kernels():
    torch.manual_seed(1)
    networks = [Attention("factor before") for _ in range(2)]
    batch = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    free, tight = (
        faigfast.attribute(*networks, batch, steps=3, memory=memory) for memory in (None, 1 << 20)
    )
    near([tight.scores()], [free.scores()])
    assert not [note for note in tight.notes if "kernel" in note]
