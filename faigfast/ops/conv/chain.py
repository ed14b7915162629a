"""Chain: path convolutions that follow each other, as one operation.

All of them pay the cost of a layer in Python and autograd once. Nothing else reads the values
between them, so gradients are added in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from faigfast.integration.cells import Cell
from faigfast.ops.conv.channel_buffer import ChannelBuffer
from faigfast.ops.conv.cpu import refuses
from faigfast.ops.conv.cpu_queue import Queue
from faigfast.ops.conv.spec import ConvSpec, PathParameters
from faigfast.ops.path_values import dense, every_point, in_phases, pitched
from faigfast.ops.registry import in_use, is_observed, using


@dataclass(frozen=True)
class Link:
    """A convolution 3×3 of a chain: y = scale · act(shuffled conv(x)) + residual.

    Parameters
    ----------
    x, residual : int
        Positions among the chain's values.
    layer : int
        Position among its `ConvParameters`.
    activation, slope, scale, shuffle
        As in `faigfast.ops.conv.operation.conv`; the activation is one of `FUSED` of
        `faigfast.ops.conv.cpu_queue`, its slope is not negative, and with one there are no scale
        and no residual: its gradient is taken from the result.
    """

    x: int
    residual: int | None
    layer: int
    activation: str
    slope: float
    scale: float
    shuffle: int

    @property
    def spec(self) -> ConvSpec:
        """What the link computes, apart from its tensors."""
        return ConvSpec(
            activation=self.activation, slope=self.slope, scale=self.scale, shuffle=self.shuffle
        )

    @property
    def takes(self) -> tuple[int, ...]:
        """Positions of the values that the link reads."""
        return (self.x,) if self.residual is None else (self.x, self.residual)


@dataclass(frozen=True)
class Concatenation:
    """A concatenation of channels, in memory with space for later ones.

    Parameters
    ----------
    takes : tuple of int
        Positions among the chain's values.
    capacity : int
        Channels for which memory is allocated.
    """

    takes: tuple[int, ...]
    capacity: int


@dataclass(frozen=True)
class ConvParameters:
    """Weights [O, C, 3, 3] and bias [O] on the line; as in `faigfast.ops.conv.operation.conv`."""

    w0: Tensor
    dw: Tensor | None
    sum_w: Tensor | None
    b0: Tensor | None
    db: Tensor | None
    sum_b: Tensor | None

    def at(self, alpha: Tensor) -> PathParameters:
        """Parameters at points [P]."""
        return PathParameters(self.w0, self.dw, self.b0, self.db, None, None, alpha)


@dataclass(frozen=True, eq=False)
class Chain:
    """Links of a chain: its values are the inputs, then one result of each link.

    Parameters
    ----------
    inputs : int
        Number of values from outside.
    links : tuple of Link or Concatenation
        In order.
    outputs : tuple of int
        Positions of the values that others read.

    Raises
    ------
    ValueError
        If the gradient of a link's activation does not follow from its result.
    """

    inputs: int
    links: tuple[Link | Concatenation, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse activations whose gradient backward cannot compute from the results."""
        for link in self.links:
            if isinstance(link, Concatenation) or link.activation == "none":
                continue
            if link.slope < 0 or link.scale != 1 or link.residual is not None:
                raise ValueError(
                    f"the gradient of {link} does not follow from its result; expected, with an "
                    "activation, a slope of at least 0, a scale of 1 and no residual"
                )

    @cached_property
    def freed_after(self) -> list[list[int]]:
        """Positions of the values that forward does not need after each link."""
        last: dict[int, int] = {}
        for number, link in enumerate(self.links):
            last[self.inputs + number] = number
            last.update(dict.fromkeys(link.takes, number))
        freed: list[list[int]] = [[] for _ in self.links]
        for position, number in last.items():
            if position not in self.outputs:
                freed[number].append(position)
        return freed

    @cached_property
    def results_of_links(self) -> frozenset[int]:
        """Positions of link results, which own their memory; concatenations are views."""
        numbered = enumerate(self.links, start=self.inputs)
        return frozenset(position for position, link in numbered if isinstance(link, Link))

    @cached_property
    def needed_in_backward(self) -> frozenset[int]:
        """Positions of the values that backward needs."""
        needed: set[int] = set()
        for position, link in enumerate(self.links, start=self.inputs):
            if isinstance(link, Link):
                needed.add(link.x)
                if link.activation != "none":
                    needed.add(position)
        return frozenset(needed)

    @cached_property
    def input_activations(self) -> list[tuple[str, float]]:
        """Activation and slope whose gradient each link includes in the gradient of its x.

        The first link that reads an activation's result is the last to add to its gradient.
        """
        first: dict[int, Link | Concatenation] = {}
        for link in self.links:
            for position in link.takes:
                first.setdefault(position, link)
        activations = [("none", 0.0)] * len(self.links)
        for number, link in enumerate(self.links):
            if isinstance(link, Link) and first[link.x] is link and link.x >= self.inputs:
                source = self.links[link.x - self.inputs]
                if isinstance(source, Link):
                    activations[number] = source.activation, source.slope
        return activations


def serves(inputs: Sequence[Tensor], parameters: Sequence[ConvParameters]) -> bool:
    """Whether the kernels serve a chain, and nothing has to see its links one by one."""
    use = in_use()
    if use.backend != "cpu" or use.values is not None or is_observed():
        return False
    return all(
        conv.w0.shape[2:] == (3, 3) and not refuses(x, conv.w0, ConvSpec())
        for conv in parameters
        for x in inputs
    )


def run(
    chain: Chain,
    inputs: Sequence[Tensor],
    parameters: Sequence[ConvParameters],
    alpha: Tensor,
    images: int,
    cells: Sequence[Cell] | None = None,
) -> tuple[Tensor, ...]:
    """Compute a chain at every point.

    Parameters
    ----------
    inputs : sequence of Tensor
        [P, M, C, H, W], or [1, M, ...] where all points share it, with M = N·b samples.
    parameters : sequence of ConvParameters
        Parameters of the links' convolutions.
    alpha : Tensor
        [P], points.
    images : int
        N.
    cells : sequence of Cell, optional
        Of the points; activations then have their mean slopes in backward.

    Returns
    -------
    tuple of Tensor
        [P, M, O, H, W] of every output.
    """
    sums = [part for conv in parameters for part in (conv.sum_w, conv.sum_b)]
    # Inside `apply` torch does not say whether there will be a backward.
    recorded = torch.is_grad_enabled()
    outputs: tuple[Tensor, ...] = _Run.apply(
        chain, parameters, alpha, images, cells, recorded, *inputs, *sums
    )
    return outputs


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chain: Chain, parameters: Sequence[ConvParameters], alpha: Tensor, images: int,
        cells: Sequence[Cell] | None, recorded: bool, *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        inputs: Any = tensors[: chain.inputs]
        keeps = recorded and any(ctx.needs_input_grad)
        values: list[Any] = [*map(pitched, inputs), *[None] * len(chain.links)]
        factors: dict[int, Tensor] = {}  # mean slopes of activations, by the values' positions
        buffers: dict[int, ChannelBuffer] = {}
        widths = [0 if v is None else v.shape[-1] for v in values]
        queue = Queue()
        for number, link in enumerate(chain.links):
            position = chain.inputs + number
            if isinstance(link, Concatenation):
                queue.run()
                values[position] = _concatenate(link, position, values, buffers)
            else:
                conv = parameters[link.layer]
                rest = None if link.residual is None else values[link.residual]
                averages = cells if link.activation != "none" else None
                values[position] = queue.convolve(
                    values[link.x], conv.at(alpha),
                    None if rest is None else _contiguous(rest, queue),
                    link.spec._replace(activation="none") if averages else link.spec,
                )  # fmt: skip
                if averages:
                    factors[position] = queue.average(values[position], averages, link.slope)
            widths[position] = values[position].shape[-1]
            for dead in chain.freed_after[number]:
                buffers.pop(dead, None)
                if not (keeps and dead in chain.needed_in_backward):
                    value, values[dead] = values[dead], None
                    if dead in chain.results_of_links:
                        queue.free(value)
        queue.run()
        outputs = tuple(values[position].movedim(-1, 2) for position in chain.outputs)
        if keeps:
            # Saved in this way, a checkpoint can compute them again.
            ctx.save_for_backward(
                *(v if n in chain.needed_in_backward else None for n, v in enumerate(values)),
                *factors.values(),
            )
            ctx.arguments = chain, parameters, alpha, images
            ctx.averaged = list(factors)
            ctx.shapes, ctx.widths = [x.shape for x in inputs], widths
            ctx.use = in_use()
            ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gys: Tensor | None) -> tuple[Tensor | None, ...]:
        with using(ctx.use):
            return *[None] * 6, *_backward(ctx, gys)


def _backward(ctx: Any, gys: Sequence[Tensor | None]) -> list[Tensor | None]:
    chain, parameters, alpha, images = ctx.arguments
    count, saved_tensors = chain.inputs + len(chain.links), ctx.saved_tensors
    values: Sequence[Tensor | None] = saved_tensors[:count]
    factors = dict(zip(ctx.averaged, saved_tensors[count:], strict=True))
    needs: Sequence[bool] = ctx.needs_input_grad[6:]
    needs_sums = needs[chain.inputs :]
    needs_gradient = [*needs[: chain.inputs]]
    for link in chain.links:
        own = isinstance(link, Link) and any(needs_sums[2 * link.layer : 2 * link.layer + 2])
        needs_gradient.append(own or any(needs_gradient[position] for position in link.takes))
    gradients: list[Any] = [None] * len(values)
    past_activation: set[int] = set()  # values whose gradient is at their activation's input
    sums: list[Tensor | None] = [None] * len(needs_sums)
    queue, phases = Queue(), in_use().phases
    made: list[Tensor] = []  # gradients in the queue's memory without views

    def add(position: int, part: Tensor) -> None:
        if needs_gradient[position]:
            total = gradients[position]
            if total is not None:
                queue.run()
            gradients[position] = part if total is None else total + part

    for position, gy in zip(chain.outputs, gys, strict=True):
        if gy is not None:
            gradients[position] = every_point(dense(gy), len(alpha))
    for position in reversed(range(chain.inputs, len(values))):
        gy, gradients[position] = gradients[position], None
        number = position - chain.inputs
        link, input_activation = chain.links[number], chain.input_activations[number]
        if gy is None:
            continue
        if isinstance(link, Concatenation):
            made = []  # gy, which has views now, may be among them
            widths = [ctx.widths[part] for part in link.takes]
            for part, own in zip(link.takes, gy.split(widths, -1), strict=True):
                add(part, own)
            continue
        if link.residual is not None:
            add(link.residual, gy)
        conv, first = parameters[link.layer], 2 * link.layer
        needed = [needs_gradient[link.x], *needs_sums[first : first + 2], False]
        activation, more = (
            "none" if position in past_activation else link.activation,
            gradients[link.x],
        )
        saved = None if activation == "none" else values[position]
        if activation != "none" and position in factors:
            activation, saved = "factor", factors[position]
        if input_activation[0] != "none" and link.x in factors:
            input_activation = "factor", 0.0
        if more is not None and not more.is_contiguous():
            queue.run()  # `pitched` copies it, unless it is a slice of channels
            more = pitched(more.movedim(-1, 2))
        gy, spec = _contiguous(gy, queue), link.spec._replace(activation=activation)
        of_x = needed if phases == 1 else [needed[0], False, False, False]
        gx, *sums[first : first + 2], _ = queue.convolve_backward(
            gy, saved, values[link.x], conv.at(alpha), more, images, of_x, spec, input_activation,
            factors.get(link.x),
        )  # fmt: skip
        if phases > 1 and any(needed[1:]):
            again = partial(in_phases, points=len(alpha), phases=phases)
            _, *sums[first : first + 2], _ = queue.convolve_backward(
                again(gy), None if saved is None else again(saved), again(values[link.x]),
                conv.at(alpha[: len(alpha) // phases]), None, phases * images,
                [False, *needed[1:]], spec,
            )  # fmt: skip
        if gx is not None:
            gradients[link.x] = gx
            made.append(gx)
            if input_activation[0] != "none":
                past_activation.add(link.x)
        pending = {id(gradient) for gradient in gradients}
        for gradient in made:
            if id(gradient) not in pending:
                queue.free(gradient)
        made = [gradient for gradient in made if id(gradient) in pending]
    queue.run()
    of_inputs = (
        None if gradient is None else gradient.movedim(-1, 2).sum_to_size(shape)
        for gradient, shape in zip(gradients, ctx.shapes, strict=False)
    )
    return [*of_inputs, *sums]


def _contiguous(part: Tensor, queue: Queue) -> Tensor:
    """Copy a tensor that is not contiguous, after the queue has filled it."""
    if part.is_contiguous():
        return part
    queue.run()
    return part.contiguous()


def _concatenate(
    link: Concatenation, position: int, values: list[Any], buffers: dict[int, ChannelBuffer]
) -> Tensor:
    parts = [values[part] for part in link.takes]
    width, total = (sum(part.shape[-1] for part in group) for group in (parts[:1], parts))
    buffer = buffers.get(link.takes[0])
    points = max(map(len, parts))
    if buffer is None or len(parts[0]) < points or not buffer.fits(width, total - width):
        buffer = ChannelBuffer(points, *parts[0].shape[1:-1], max(link.capacity, total))
    buffers[position] = buffer
    for part in parts[1:] if buffer.used else parts:
        buffer.put(part)
    return pitched(buffer.pixels().movedim(-1, 2))
