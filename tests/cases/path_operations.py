"""Path operations, and the same computation by plain autograd for one point and image at a time."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import torch
from torch.nn import functional as F

import faigfast.engine.op_rules  # noqa: F401 - it registers every kernel
from faigfast.ops import registry
from faigfast.ops.affine import affine
from faigfast.ops.conv.operation import conv
from faigfast.ops.embedding import embedding
from faigfast.ops.linear.operation import linear
from faigfast.ops.parameter import parameter
from faigfast.ops.path_values import new_gradient_sums
from faigfast.ops.prelu import prelu

PLAIN_ACTIVATIONS = {
    "none": lambda z, slope: z,
    "relu": lambda z, slope: F.relu(z),
    "leaky_relu": lambda z, slope: F.leaky_relu(z, slope),
    "sigmoid": lambda z, slope: torch.sigmoid(z),
    "prelu": F.prelu,
    "gelu": lambda z, slope: F.gelu(z),
    "gelu_tanh": lambda z, slope: F.gelu(z, approximate="tanh"),
    "silu": lambda z, slope: F.silu(z),
}
NOTHING = (None, None, None)


@dataclass(frozen=True)
class Case:
    """One call: x [P, N, ...] or [1, N, ...], `line` of (w0, Δ) or None, residual [P or 1, N, ...].

    `run(x, [(w0, dw, sums)], alpha, residual)` is the path operation. `plain(x, values, residual)`
    computes the same for one image at one point.
    """

    run: object
    plain: object
    x: torch.Tensor | None
    line: list
    alpha: torch.Tensor
    images: int
    residual: torch.Tensor | None = None
    integers: bool = False
    alike: bool = False  # whether all points share one gradient at y

    def to(self, kind):
        """The case in another type or on another device."""

        def cast(t):
            return t.to(kind) if isinstance(t, torch.Tensor) and t.is_floating_point() else t

        line = [None if part is None else tuple(map(cast, part)) for part in self.line]
        parts = (cast(t) for t in (self.x, self.alpha, self.residual))
        return replace(self, line=line, **dict(zip(("x", "alpha", "residual"), parts, strict=True)))


@dataclass(frozen=True)
class Values:
    """y, gradients of x and residual by point and image, gradients of the line by image."""

    y: torch.Tensor
    gx: torch.Tensor | None
    gr: torch.Tensor | None
    sums: list

    def named(self):
        """(name, tensor, number of its leading dimensions that are points and images)."""
        yield "y", self.y, 2
        yield from ((name, t, 2) for name, t in (("gx", self.gx), ("gr", self.gr)) if t is not None)
        yield from ((f"sums {i}", t, 1) for i, t in enumerate(self.sums) if t is not None)


def upstream(case, y):
    """Gradient at y, equal for every computation of the case."""
    generator = torch.Generator().manual_seed(99)
    shape = (1, *y.shape[1:]) if case.alike else y.shape
    if case.integers:
        gy = torch.randint(-3, 4, shape, generator=generator)
    else:
        gy = torch.randn(shape, generator=generator, dtype=torch.float64)
    return gy.to(y).expand(y.shape)


def operation_values(case, gy=None, alpha=slice(None)):
    """Values and gradients by the path operation; `gy` has y's shape, `alpha` selects points."""
    x, residual = case.x, case.residual
    if x is not None:
        x = x[alpha] if len(x) > 1 else x
        x = x.detach().requires_grad_(x.is_floating_point())
    if residual is not None:
        residual = residual[alpha] if len(residual) > 1 else residual
        residual = residual.detach().requires_grad_()
    line = [NOTHING if part is None else with_sums(part, case.images) for part in case.line]
    y = case.run(x, line, case.alpha[alpha], residual)
    y.backward(upstream(case, y) if gy is None else gy[alpha])
    return Values(
        y.detach(),
        None if x is None else x.grad,
        None if residual is None else residual.grad,
        [None if grad_sum is None else grad_sum.grad for _, _, grad_sum in line],
    )


def arguments(case):
    """(name, arguments) of the path operation and its backward, as they run."""
    calls = []

    def watched(operation, *args):
        calls.append((operation, args))
        return choose(operation, *args)

    choose = registry.choose
    with mock.patch.object(registry, "choose", watched):
        operation_values(case)
    return calls


def explain(operation, *args):
    """Reason why each kernel of an operation refuses these arguments, "" where it serves them."""
    return {kernel.name: kernel.refuses(*args) for kernel in registry.KERNELS[operation]}


def with_sums(part, images):
    w0, dw = part
    return w0, dw, None if dw is None else new_gradient_sums(w0.shape, images, w0)


def expected(case):
    """Values and gradients by plain autograd, one image at one point at a time."""
    x, residual = (None if t is None else t.detach().clone() for t in (case.x, case.residual))
    grads = [None if t is None or not t.is_floating_point() else torch.zeros_like(t)
             for t in (x, residual)]  # fmt: skip
    grad_sums = [
        None if part is None or part[1] is None else part[0].new_zeros(case.images, *part[0].shape)
        for part in case.line
    ]
    samples = []
    for p, a in enumerate(case.alpha):
        for n in range(case.images):
            values = [None if part is None else at(*part, a) for part in case.line]
            ones = [None if t is None else t[p % len(t), n].clone() for t in (x, residual)]
            for one, grad in zip(ones, grads, strict=True):
                if grad is not None:
                    one.requires_grad_()
            samples.append((p, n, values, ones, case.plain(ones[0], values, ones[1])))
    y = torch.stack([sample[-1].detach() for sample in samples])
    y = y.unflatten(0, (len(case.alpha), case.images))
    gy = upstream(case, y)
    for p, n, values, ones, one_y in samples:
        one_y.backward(gy[p, n])
        for one, grad in zip(ones, grads, strict=True):
            if grad is not None:
                grad[p % len(grad), n] += one.grad
        for value, total in zip(values, grad_sums, strict=True):
            if total is not None:
                total[n] += value.grad
    return Values(y, *grads, grad_sums)


def at(w0, dw, alpha):
    """A point of the line as a leaf."""
    return (w0 if dw is None else w0 + alpha * dw).detach().clone().requires_grad_()


def errors(result, reference):
    """Worst relative L2 error over points and images of every tensor, by name."""
    worst = {}
    for (name, a, dims), (other, b, _) in zip(result.named(), reference.named(), strict=True):
        assert name == other and a.shape == b.shape, (name, a.shape, other, b.shape)
        a, b = (t.cpu().double().reshape(t.shape[:dims].numel(), -1) for t in (a, b))
        difference, norm = (a - b).norm(dim=1), b.norm(dim=1)
        # 0/0: a zero reference needs a zero result.
        relative = torch.where(difference == 0, 0.0, difference / norm)
        worst[name] = relative.max().item()
    return worst


def assert_near(result, reference, bound):
    worst = errors(result, reference)
    # A NaN is not below the bound.
    assert all(error <= bound for error in worst.values()), worst


def assert_equal(result, reference):
    for (name, a, _), (_, b, _) in zip(result.named(), reference.named(), strict=True):
        assert torch.equal(a.to(b.device, b.dtype), b), name


@contextmanager
def poisoned():
    """Fill all uninitialised memory with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all() and torch.empty(2).new_empty(3).isnan().all()
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(before)


class Numbers:
    """Random tensors in sequence, of a normal distribution or of small integers."""

    def __init__(self, integers, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.integers = integers

    def __call__(self, *shape, gain=1.0):
        if self.integers:
            return torch.randint(-3, 4, shape, generator=self.generator).double()
        return gain * torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def on_line(self, *shape, kind="moves", gain=1.0):
        """(w0, Δ), (w0, None) or None. Integer Δ is even, so that half of it is an integer."""
        if kind is None:
            return None
        w0, dw = self(*shape, gain=gain), self(*shape, gain=gain)
        return (w0, (2 * dw if self.integers else dw) if kind == "moves" else None)

    def alpha(self, points):
        if self.integers:
            return torch.tensor([0.5, 1.0, 0.0] * points, dtype=torch.float64)[:points]
        return torch.linspace(0.9, 0.2, points, dtype=torch.float64)


def laid_out(x, layout):
    """x [P, N, ..., C, *spatial] with other strides; `images alike` repeats the first image."""
    if layout == "contiguous":
        return x
    if layout == "channels last":
        return x.movedim(3, -1).contiguous().movedim(-1, 3)
    if layout == "strided":
        strided = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan, dtype=x.dtype)
        strided = strided.transpose(0, 1).contiguous().transpose(0, 1)
        strided[..., 1::2] = x
        return strided[..., 1::2]
    assert layout == "images alike"
    return x[:, :1].expand(x.shape)


def conv_case(
    points=2, images=2, samples=1, channels=(3, 5), size=(7, 5), kernel=3, stride=1, padding=1,
    dilation=1, transposed=False, output_padding=0, groups=1, weight="moves", bias="moves",
    activation="none", slopes="moves", single=False, slope=0.1, scale=1.0, residual=None,
    shuffle=1, shared=False, layout="contiguous", integers=False, alike=False, seed=0,
):  # fmt: skip
    numbers, rank = Numbers(integers, seed), len(size)
    c, o = channels
    kernel = (kernel,) * rank if isinstance(kernel, int) else kernel
    sides = [
        [value] * rank if isinstance(value, int) else list(value)
        for value in (stride, padding, dilation)
    ]
    extra = [output_padding] * rank if isinstance(output_padding, int) else list(output_padding)
    geometry = (*sides, transposed, extra, groups)
    shape = (c, o // groups, *kernel) if transposed else (o, c // groups, *kernel)
    gain = (c // groups * torch.Size(kernel).numel()) ** -0.5
    prelu_slope = slopes if activation == "prelu" else None
    line = [
        numbers.on_line(*shape, kind=weight, gain=gain),
        numbers.on_line(o, kind=bias),
        numbers.on_line(1 if single else o, kind=prelu_slope, gain=0.3),
    ]
    x = laid_out(numbers(1 if shared else points, images, samples, c, *size), layout)

    def run(x, line, alpha, residual):
        (w0, dw, sum_w), (b0, db, sum_b), (s0, ds, sum_s) = line
        y, _ = conv(
            x.flatten(1, 2), w0, dw, b0, db, s0, ds, alpha, sum_w, sum_b, sum_s,
            None if residual is None else residual.flatten(1, 2), *geometry, activation, slope,
            scale, shuffle,
        )  # fmt: skip
        return y.unflatten(1, x.shape[1:3])

    def plain(x, values, residual):
        w, b, s = values
        name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
        strides, pads, dilations = sides
        options = {"output_padding": extra} if transposed else {}
        z = getattr(F, name)(x, w, b, strides, pads, groups=groups, dilation=dilations, **options)
        z = F.pixel_shuffle(z, shuffle) if shuffle > 1 else z
        y = PLAIN_ACTIVATIONS[activation](z, slope if s is None else s) * scale
        return y if residual is None else y + residual

    case = Case(run, plain, x, line, numbers.alpha(points), images, None, integers, alike)
    if residual is None:
        return case
    values = [None if part is None else part[0] for part in line]
    like = plain(x[0, 0], values, None)
    # Another layout than the convolution's result.
    given = numbers(points if residual == "points" else 1, images, *like.shape)
    return replace(case, residual=laid_out(given, "channels last"))


def linear_case(
    points=2, images=2, rows=4, features=(3, 5), weight="moves", bias="moves", shared=False,
    layout="contiguous", integers=False, alike=False, seed=0,
):  # fmt: skip
    numbers = Numbers(integers, seed)
    i, o = features
    line = [
        numbers.on_line(o, i, kind=weight, gain=i**-0.5),
        numbers.on_line(o, kind=bias),
    ]
    x = laid_out(numbers(1 if shared else points, images, rows, i), layout)

    def run(x, line, alpha, residual):
        (w0, dw, sum_w), (b0, db, sum_b) = line
        return linear(x, w0, dw, b0, db, alpha, sum_w, sum_b)

    def plain(x, values, residual):
        return F.linear(x, *values)

    return Case(run, plain, x, line, numbers.alpha(points), images, None, integers, alike)


def affine_case(
    points=2, images=2, rows=3, channels=5, size=7, weight="moves", bias="moves", shared=False,
    layout="contiguous", integers=False, seed=0,
):  # fmt: skip
    numbers = Numbers(integers, seed)
    line = [numbers.on_line(channels, kind=weight), numbers.on_line(channels, kind=bias)]
    x = laid_out(numbers(1 if shared else points, images, rows, channels, size), layout)

    def run(x, line, alpha, residual):
        (w0, dw, sum_w), (b0, db, sum_b) = line
        return affine(x, w0, dw, b0, db, alpha, sum_w, sum_b)

    def plain(x, values, residual):
        w, b = values
        return x * w[:, None] + b[:, None]

    return Case(run, plain, x, line, numbers.alpha(points), images, None, integers)


def prelu_case(
    points=2, images=2, rows=3, channels=5, size=7, weight="moves", single=False, shared=False,
    layout="contiguous", integers=False, seed=0,
):  # fmt: skip
    numbers = Numbers(integers, seed)
    line = [numbers.on_line(1 if single else channels, kind=weight)]
    x = laid_out(numbers(1 if shared else points, images, rows, channels, size), layout)

    def run(x, line, alpha, residual):
        w0, dw, sum_w = line[0]
        return prelu(x, w0, dw, alpha, sum_w)

    def plain(x, values, residual):
        return F.prelu(x, values[0])

    return Case(run, plain, x, line, numbers.alpha(points), images, None, integers)


def embedding_case(points=2, images=2, rows=6, table=(5, 3), shared=False, integers=False, seed=0):
    numbers = Numbers(integers, seed)
    line = [numbers.on_line(*table)]
    shape = (1 if shared else points, images, rows)
    x = torch.randint(0, table[0], shape, generator=numbers.generator)

    def run(x, line, alpha, residual):
        w0, dw, sum_w = line[0]
        return embedding(x, w0, dw, alpha, sum_w)

    def plain(x, values, residual):
        return F.embedding(x, values[0])

    return Case(run, plain, x, line, numbers.alpha(points), images, None, integers)


def parameter_case(points=2, images=2, shape=(3, 4), integers=False, seed=0):
    numbers = Numbers(integers, seed)

    def run(x, line, alpha, residual):
        w0, dw, sum_w = line[0]
        return parameter(w0, dw, alpha, sum_w)

    def plain(x, values, residual):
        return values[0].clone()

    line = [numbers.on_line(*shape)]
    return Case(run, plain, None, line, numbers.alpha(points), images, None, integers)
