"""Chains of convolutions and concatenations, with their arguments and expected results."""

from functools import partial

import torch
from cases.path_operations import Numbers, laid_out, with_sums
from torch.nn import functional as F

from faigfast.ops.conv.chain import Chain, Concatenation, ConvParameters, Link, run
from faigfast.ops.conv.operation import conv

BOUND = 1e-5  # relative L2 of every value and gradient; 1e-6 measured
NOTHING = (None, None, None)
GEOMETRY = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
ACTIVATIONS = {"none": lambda z, _: z, "relu": lambda z, _: F.relu(z), "leaky_relu": F.leaky_relu}
cat = Concatenation


def link(x, channels, residual=None, activation="none", slope=0.0, scale=1.0, shuffle=1):
    """A convolution of value number `x` to this many channels."""
    return channels, partial(
        Link, x, residual, activation=activation, slope=slope, scale=scale, shuffle=shuffle
    )


def made(widths, links, outputs):
    """A chain whose inputs have `widths` channels, and the (in, out) channels of its layers."""
    widths, layer_channels, steps = list(widths), [], []
    inputs = len(widths)
    for step in links:
        if isinstance(step, Concatenation):
            widths.append(sum(widths[part] for part in step.takes))
        else:
            channels, make = step
            step = make(layer=len(layer_channels))
            layer_channels.append((widths[step.x], channels))
            widths.append(channels // step.shuffle**2)
        steps.append(step)
    return Chain(inputs, tuple(steps), outputs), layer_channels


LEAKY = dict(activation="leaky_relu", slope=0.1)
DENSE = [
    link(0, 3, **LEAKY), cat((0, 1), 12), link(2, 3, **LEAKY), cat((2, 3), 12),
    link(4, 5, **LEAKY), cat((4, 5), 12), link(6, 4, residual=0, scale=0.2),
]  # fmt: skip
CHAINS = {  # inputs' channels, links, outputs
    "two": ([3], [link(0, 5, activation="relu"), link(1, 4)], [2]),
    "three": ([3], [link(0, 17), link(1, 5, **LEAKY), link(2, 20, activation="relu")], [3]),
    "block": ([4], [link(0, 6, activation="relu"), link(1, 4, residual=0, scale=0.5)], [2]),
    "x is the residual": ([4], [link(0, 4), link(1, 4, residual=1, scale=-2.0)], [2]),
    "x and residual are an input": ([4], [link(0, 4, residual=0), link(1, 4)], [2]),
    "an input is residual": ([3, 4], [link(0, 5), link(2, 4, residual=1)], [3]),
    "an input is used twice": ([4], [link(0, 4), link(0, 4, residual=1), link(2, 4, 0)], [3]),
    "a value is used four times": (
        [3], [link(0, 4, activation="relu"), link(1, 4), link(1, 4, 1), link(3, 4, 2)], [4],
    ),
    "all are outputs": (
        [4], [link(0, 4, activation="relu"), link(1, 4), link(2, 4, residual=1)], [1, 2, 3],
    ),
    "not in order": ([4], [link(0, 4, activation="relu"), link(1, 4, residual=0)], [2, 1]),
    "side by side": ([3, 3], [link(0, 4, **LEAKY), link(1, 5, **LEAKY), link(2, 6)], [3, 4]),
    "a dead end": ([3], [link(0, 4), link(1, 4, **LEAKY), link(1, 4, **LEAKY)], [3]),
    "shuffled": (
        [3], [link(0, 16, shuffle=2, activation="relu"), link(1, 18, shuffle=3), link(2, 3)], [3],
    ),
    "dense": ([4], DENSE, [7]),
    "dense, seen": ([4], DENSE, [3, 4, 6, 7]),
    "joined twice": (
        [4],
        [
            link(0, 3), cat((0, 1), 12), link(2, 3), link(2, 5, **LEAKY),
            cat((2, 3), 10), cat((2, 4), 12), link(5, 4), link(6, 4, residual=7),
        ],
        [8],
    ),
    "joined to itself": (
        [3], [link(0, 2), cat((1, 1), 8), cat((2, 2), 8), link(3, 4), link(2, 4)], [4, 5],
    ),
    "joined from outside": (
        [2, 3], [cat((0, 1), 11), link(2, 4), cat((2, 3, 0), 11), link(4, 3)], [5],
    ),
    "joined is residual": ([3], [link(0, 2), cat((0, 1), 9), link(2, 5, residual=2)], [3]),
    "one channel": (
        [1], [link(0, 1), cat((0, 1), 3), link(2, 1), cat((2, 3), 3), link(4, 1)], [5],
    ),
    "joined alone": (
        [4], [link(0, 4), link(1, 4), link(2, 4), cat((0,), 4), link(4, 4, residual=3)], [5],
    ),
    "joined, then narrower": (
        [4], [link(0, 3), cat((0, 1), 12), link(2, 5), link(3, 7), link(4, 4)], [5],
    ),
    "no room": ([3], [link(0, 2), cat((0, 1), 5), cat((2, 1), 5), link(3, 3)], [4]),
}  # fmt: skip


def case(name, points=2, images=2, samples=1, size=(7, 5), shared=(), layout="contiguous",
         weights="moves", biases="moves"):  # fmt: skip
    """A chain, its inputs [P, M, C, H, W], (w0, Δ) and (b0, Δ) of its layers, α and N, in float64.

    All points share the inputs in `shared`. `weights` and `biases` are a kind of `Numbers.on_line`
    for all layers, or a list of kinds for the layers in turn.
    """
    widths, links, outputs = CHAINS[name]
    chain, channels = made(widths, links, tuple(outputs))
    numbers = Numbers(integers=False, seed=0)
    inputs = [
        laid_out(numbers(1 if i in shared else points, images, samples, width, *size), layout)
        for i, width in enumerate(widths)
    ]
    layers = [
        (
            numbers.on_line(o, c, 3, 3, kind=_of(weights, i), gain=(9 * c) ** -0.5),
            numbers.on_line(o, kind=_of(biases, i), gain=0.2),
        )
        for i, (c, o) in enumerate(channels)
    ]
    return chain, [x.flatten(1, 2) for x in inputs], layers, numbers.alpha(points), images


def _of(kinds, i):
    return kinds[i % len(kinds)] if isinstance(kinds, list) else kinds


def upstream(outputs, without=()):
    """A gradient for every output that is not in `without`."""
    generator = torch.Generator().manual_seed(99)
    random = partial(torch.randn, generator=generator, dtype=torch.float64)
    return [None if i in without else random(y.shape).to(y) for i, y in enumerate(outputs)]


def values(outputs, leaves, without=()):
    """Outputs, and the gradients of leaves by one backward pass."""
    gys = upstream(outputs, without)
    pairs = [
        (y, gy) for y, gy in zip(outputs, gys, strict=True) if gy is not None and y.requires_grad
    ]
    torch.autograd.backward(*zip(*pairs, strict=True))
    return [*(y.detach() for y in outputs), *(leaf.grad for leaf in leaves)]


def prepared(given, still=()):
    """Arguments of the operation in float32, and its leaves: inputs not in `still`, and layers."""
    chain, inputs, layers, alpha, images = given
    inputs = [x.float().detach().requires_grad_(i not in still) for i, x in enumerate(inputs)]
    lines = [
        [NOTHING if part is None else with_sums(_float(part), images) for part in layer]
        for layer in layers
    ]
    gradient_sums = [part[2] for layer in lines for part in layer if part[2] is not None]
    leaves = [x for x in inputs if x.requires_grad] + gradient_sums
    return (
        chain,
        inputs,
        [ConvParameters(*w, *b) for w, b in lines],
        alpha.float(),
        images,
    ), leaves


def operation_values(given, run=run, still=(), without=()):
    """By the operation: outputs, gradients of inputs not in `still`, gradients of layers."""
    arguments, leaves = prepared(given, still)
    return values(run(*arguments), leaves, without)


def _float(part):
    return tuple(None if t is None else t.float() for t in part)


def one_by_one(chain, inputs, layers, alpha, images):
    """The outputs of a chain, by one operation per link."""
    known = list(inputs)
    for step in chain.links:
        if isinstance(step, Concatenation):
            points = max(len(known[part]) for part in step.takes)
            parts = [known[part] for part in step.takes]
            known.append(torch.cat([p.expand(points, *p.shape[1:]) for p in parts], 2))
            continue
        own = layers[step.layer]
        y, _ = conv(
            known[step.x], own.w0, own.dw, own.b0, own.db, None, None, alpha, own.sum_w,
            own.sum_b, None, None if step.residual is None else known[step.residual],
            *GEOMETRY, step.activation, step.slope, step.scale, step.shuffle,
        )  # fmt: skip
        known.append(y)
    return [known[place] for place in chain.outputs]


def expected(given, still=(), without=()):
    """By plain PyTorch in float64, one image at one point after the other."""
    chain, inputs, layers, alpha, images = given
    inputs = [x.detach().clone().requires_grad_(i not in still) for i, x in enumerate(inputs)]
    # A zero offset per image, added to its parameters, collects the sum of the gradients.
    offsets = [
        [None if part is None or part[1] is None else
         part[0].new_zeros(images, *part[0].shape).requires_grad_() for part in layer]
        for layer in layers
    ]  # fmt: skip
    rows = []
    for p, a in enumerate(alpha):
        for n in range(images):
            known = [x[p % len(x)].chunk(images)[n] for x in inputs]
            for step in chain.links:
                if isinstance(step, Concatenation):
                    known.append(torch.cat([known[part] for part in step.takes], 1))
                    continue
                w, b = (
                    None if part is None else part[0] if part[1] is None
                    else part[0] + a * part[1] + own[n]
                    for part, own in zip(layers[step.layer], offsets[step.layer], strict=True)
                )  # fmt: skip
                z = F.conv2d(known[step.x], w, b, padding=1)
                z = F.pixel_shuffle(ACTIVATIONS[step.activation](z, step.slope), step.shuffle)
                rest = 0 if step.residual is None else known[step.residual]
                known.append(step.scale * z + rest)
            rows.append([known[place] for place in chain.outputs])
    outputs = [
        torch.cat(column).unflatten(0, (len(alpha), -1)) for column in zip(*rows, strict=True)
    ]
    flat = [own for layer in offsets for own in layer if own is not None]
    return values(outputs, [x for x in inputs if x.requires_grad] + flat, without)


def assert_near(result, reference, bound=BOUND):
    for i, (one, other) in enumerate(zip(result, reference, strict=True)):
        assert (one is None) == (other is None), i
        if other is not None:
            assert one.shape == other.shape, i
            # A NaN is not below the bound.
            assert (one.double() - other.double()).norm() <= bound * other.norm(), i


def assert_right(given, **options):
    assert_near(operation_values(given, **options), expected(given, **options))
