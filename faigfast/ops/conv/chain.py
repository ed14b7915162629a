"""Chain: path convolutions that follow each other, as one operation.

What a layer costs in Python and in autograd is paid once for all of them. Values between them are
seen by nobody else, so that gradients are added where they are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from faigfast.backend.cpu.allocator import empty
from faigfast.ops.conv.cpu import refuses
from faigfast.ops.conv.cpu_queue import Queue
from faigfast.ops.path_values import dense, every_point, pitched
from faigfast.ops.registry import in_use, looked_on, using


@dataclass(frozen=True)
class Link:
    """A convolution 3×3 of a chain: y = scale · act(shuffled conv(x)) + residual.

    Parameters
    ----------
    x, residual : int
        Places among the chain's values.
    layer : int
        Place among its layers.
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
    def takes(self) -> tuple[int, ...]:
        """Values that it reads."""
        return (self.x,) if self.residual is None else (self.x, self.residual)


@dataclass(frozen=True)
class Joint:
    """A concatenation of channels, in memory that has room for those which follow.

    Parameters
    ----------
    takes : tuple of int
        Places among the chain's values.
    room : int
        For how many channels memory is made.
    """

    takes: tuple[int, ...]
    room: int


@dataclass(frozen=True)
class Layer:
    """Weights [O, C, 3, 3] and bias [O] on the line; as in `faigfast.ops.conv.operation.conv`."""

    w0: Tensor
    dw: Tensor | None
    sum_w: Tensor | None
    b0: Tensor | None
    db: Tensor | None
    sum_b: Tensor | None


@dataclass(frozen=True, eq=False)
class Chain:
    """What is computed: values are the inputs, and one of each link after them.

    Parameters
    ----------
    inputs : int
        How many values come from outside.
    links : tuple of Link or Joint
        In order.
    outputs : tuple of int
        Places of the values that others see.

    Raises
    ------
    ValueError
        If the gradient of a link's activation does not follow from its result.
    """

    inputs: int
    links: tuple[Link | Joint, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what backward could not tell from the results."""
        for link in self.links:
            if isinstance(link, Joint) or link.activation == "none":
                continue
            if link.slope < 0 or link.scale != 1 or link.residual is not None:
                raise ValueError(
                    f"the gradient of {link} does not follow from its result; expected, with an "
                    "activation, a slope of at least 0, a scale of 1 and no residual"
                )

    @cached_property
    def dying(self) -> list[list[int]]:
        """Values that nobody needs in forward after each link."""
        last: dict[int, int] = {}
        for number, link in enumerate(self.links):
            last[self.inputs + number] = number
            last.update(dict.fromkeys(link.takes, number))
        found: list[list[int]] = [[] for _ in self.links]
        for place, number in last.items():
            if place not in self.outputs:
                found[number].append(place)
        return found

    @cached_property
    def of_links(self) -> frozenset[int]:
        """Values that links give, in memory of their own; those of joints are views of a room."""
        places = enumerate(self.links, start=self.inputs)
        return frozenset(place for place, link in places if isinstance(link, Link))

    @cached_property
    def kept(self) -> frozenset[int]:
        """Values that backward needs."""
        found: set[int] = set()
        for place, link in enumerate(self.links, start=self.inputs):
            if isinstance(link, Link):
                found.add(link.x)
                if link.activation != "none":
                    found.add(place)
        return frozenset(found)

    @cached_property
    def before(self) -> list[tuple[str, float]]:
        """Activation and slope behind which each link brings the gradient of its x.

        The first link that takes an activation's result is the last to add to its gradient.
        """
        first: dict[int, Link | Joint] = {}
        for link in self.links:
            for place in link.takes:
                first.setdefault(place, link)
        found = [("none", 0.0)] * len(self.links)
        for number, link in enumerate(self.links):
            if isinstance(link, Link) and first[link.x] is link and link.x >= self.inputs:
                source = self.links[link.x - self.inputs]
                if isinstance(source, Link):
                    found[number] = source.activation, source.slope
        return found


def serves(inputs: Sequence[Tensor], layers: Sequence[Layer]) -> bool:
    """Whether the kernels serve a chain, and nobody has to see its links one by one."""
    use = in_use()
    if use.backend != "cpu" or (use.values, use.layers) != (None, None) or looked_on():
        return False
    return all(
        layer.w0.shape[2:] == (3, 3) and not refuses(x, layer.w0)
        for layer in layers
        for x in inputs
    )


def run(
    chain: Chain, inputs: Sequence[Tensor], layers: Sequence[Layer], alpha: Tensor, images: int
) -> tuple[Tensor, ...]:
    """Compute a chain at every point.

    Parameters
    ----------
    inputs : sequence of Tensor
        [P, M, C, H, W], or [1, M, ...] where all points share it, with M = N·b samples.
    layers : sequence of Layer
        By their places.
    alpha : Tensor
        [P], points.
    images : int
        N.

    Returns
    -------
    tuple of Tensor
        [P, M, O, H, W] of every output.
    """
    sums = [part for layer in layers for part in (layer.sum_w, layer.sum_b)]
    # Inside `apply` nothing tells whether there will be a backward.
    recorded = torch.is_grad_enabled()
    found: tuple[Tensor, ...] = _Run.apply(chain, layers, alpha, images, recorded, *inputs, *sums)
    return found


class Room:
    """Memory [P, M, H, W, C] for images whose channels come one after the other.

    A dense block joins the result of every convolution to all that was before it: only what is new
    is written.
    """

    def __init__(self, *shape: int) -> None:
        self._pixels = empty(*shape)
        self.used = 0

    def fits(self, width: int, more: int) -> bool:
        """Whether those that are there are the first `width`, with room for more."""
        return self.used == width and width + more <= self._pixels.shape[-1]

    def put(self, part: Tensor) -> None:
        """Write channels [P, M, H, W, C] behind those that are there."""
        self._pixels.narrow(-1, self.used, part.shape[-1]).copy_(part)
        self.used += part.shape[-1]

    def pixels(self) -> Tensor:
        """Give all channels that are there."""
        return self._pixels.narrow(-1, 0, self.used)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chain: Chain, layers: Sequence[Layer], alpha: Tensor, images: int,
        recorded: bool, *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        inputs: Any = tensors[: chain.inputs]
        keeps = recorded and any(ctx.needs_input_grad)
        values: list[Any] = [*map(pitched, inputs), *[None] * len(chain.links)]
        rooms: dict[int, Room] = {}
        widths = [0 if v is None else v.shape[-1] for v in values]
        queue = Queue()
        for number, link in enumerate(chain.links):
            place = chain.inputs + number
            if isinstance(link, Joint):
                queue.run()
                values[place] = _join(link, place, values, rooms)
            else:
                layer = layers[link.layer]
                rest = None if link.residual is None else values[link.residual]
                values[place] = queue.convolve(
                    values[link.x], layer.w0, layer.dw, layer.b0, layer.db, alpha,
                    None if rest is None else _contiguous(rest, queue), link.activation,
                    link.slope, link.scale, link.shuffle,
                )  # fmt: skip
            widths[place] = values[place].shape[-1]
            for dead in chain.dying[number]:
                rooms.pop(dead, None)
                if not (keeps and dead in chain.kept):
                    value, values[dead] = values[dead], None
                    if dead in chain.of_links:
                        queue.free(value)
        queue.run()
        found = tuple(values[place].movedim(-1, 2) for place in chain.outputs)
        if keeps:
            # In this way they are made again where memory is short: see `checkpoint`.
            ctx.save_for_backward(
                *(v if place in chain.kept else None for place, v in enumerate(values))
            )
            ctx.given = chain, layers, alpha, images
            ctx.shapes, ctx.widths = [x.shape for x in inputs], widths
            ctx.use = in_use()
            ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gys: Tensor | None) -> tuple[Tensor | None, ...]:
        with using(ctx.use):
            return None, None, None, None, None, *_backward(ctx, gys)


def _backward(ctx: Any, gys: Sequence[Tensor | None]) -> list[Tensor | None]:
    chain, layers, alpha, images = ctx.given
    values: Sequence[Tensor | None] = ctx.saved_tensors
    needs: Sequence[bool] = ctx.needs_input_grad[5:]
    of_sums = needs[chain.inputs :]
    wanted = [*needs[: chain.inputs]]
    for link in chain.links:
        own = isinstance(link, Link) and any(of_sums[2 * link.layer : 2 * link.layer + 2])
        wanted.append(own or any(wanted[place] for place in link.takes))
    gradients: list[Any] = [None] * len(values)
    behind: set[int] = set()  # gradients that are at the input of the activation already
    sums: list[Tensor | None] = [None] * len(of_sums)
    queue = Queue()
    made: list[Tensor] = []  # those in the queue's memory, of which there is no view

    def add(place: int, part: Tensor) -> None:
        if wanted[place]:
            before = gradients[place]
            if before is not None:
                queue.run()
            gradients[place] = part if before is None else before + part

    for place, gy in zip(chain.outputs, gys, strict=True):
        if gy is not None:
            gradients[place] = every_point(dense(gy), len(alpha))
    for place in reversed(range(chain.inputs, len(values))):
        gy, gradients[place] = gradients[place], None
        link, before = (part[place - chain.inputs] for part in (chain.links, chain.before))
        if gy is None:
            continue
        if isinstance(link, Joint):
            made = []  # gy, of which there are views now, may be among them
            widths = [ctx.widths[part] for part in link.takes]
            for part, own in zip(link.takes, gy.split(widths, -1), strict=True):
                add(part, own)
            continue
        if link.residual is not None:
            add(link.residual, gy)
        layer, first = layers[link.layer], 2 * link.layer
        need = [wanted[link.x], *of_sums[first : first + 2], False]
        activation, more = "none" if place in behind else link.activation, gradients[link.x]
        saved = None if activation == "none" else values[place]
        if more is not None and not more.is_contiguous():
            queue.run()  # it is copied, unless it is some channels of a wider one
            more = pitched(more.movedim(-1, 2))
        gx, *sums[first : first + 2], _ = queue.convolve_backward(
            _contiguous(gy, queue), saved, values[link.x], layer.w0, layer.dw, None, None, alpha,
            more, images, need, activation, link.slope, link.scale, link.shuffle, before,
        )  # fmt: skip
        if gx is not None:
            gradients[link.x] = gx
            made.append(gx)
            if before[0] != "none":
                behind.add(link.x)
        waiting = {id(gradient) for gradient in gradients}
        for one in made:
            if id(one) not in waiting:
                queue.free(one)
        made = [one for one in made if id(one) in waiting]
    queue.run()
    of_inputs = (
        None if gradient is None else gradient.movedim(-1, 2).sum_to_size(shape)
        for gradient, shape in zip(gradients, ctx.shapes, strict=False)
    )
    return [*of_inputs, *sums]


def _contiguous(part: Tensor, queue: Queue) -> Tensor:
    """Copy what lies apart, after it was made."""
    if part.is_contiguous():
        return part
    queue.run()
    return part.contiguous()


def _join(joint: Joint, place: int, values: list[Any], rooms: dict[int, Room]) -> Tensor:
    parts = [values[part] for part in joint.takes]
    width, total = (sum(part.shape[-1] for part in some) for some in (parts[:1], parts))
    room = rooms.get(joint.takes[0])
    points = max(map(len, parts))
    if room is None or len(parts[0]) < points or not room.fits(width, total - width):
        room = Room(points, *parts[0].shape[1:-1], max(joint.room, total))
    rooms[place] = room
    for part in parts[1:] if room.used else parts:
        room.put(part)
    return pitched(room.pixels().movedim(-1, 2))
