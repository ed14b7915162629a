"""Memory: bytes of a run of a plan, counted without data, and chunks that fit a budget."""

import math
import operator
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faigfast.engine.machine_memory import memory_of
from faigfast.engine.op_rules import CONVOLUTIONS, is_kinked
from faigfast.engine.points import Moving, Points
from faigfast.engine.run import Plan, forward, prepare, with_gradient_sums
from faigfast.engine.samples import Samples
from faigfast.io.text_table import counted
from faigfast.ops.registry import in_use, plain

aten = torch.ops.aten

SHARE = 0.25  # of the machine's memory, where no budget is given
FREE = 0.8  # of the free memory, where that is less
MOST_SEGMENTS = 32
MARGIN = 1.15  # for copies inside library calls
RAN_OUT_NOTE = (
    "memory: ran out with {} at once; went on with {}, which changes no score; a smaller memory= "
    "avoids the attempt"
)


@dataclass(frozen=True)
class Chunk:
    """How much of the work is in memory at once.

    Parameters
    ----------
    points, images : int
        P and N of a chunk.
    segments : int
        Parts of the network; with more than one, backward computes inner values again.
    at_once : int
        Chunks that run at the same time, each in a thread.
    averages : bool
        Whether slopes of kinks are averaged, which keeps a factor of every such value.
    """

    points: int
    images: int
    segments: int = 1
    at_once: int = 1
    averages: bool = False

    def __str__(self) -> str:
        """Words for a note, such as "2 points of 4 images in 3 parts of the network"."""
        points = counted(self.points * self.at_once, "point")
        text = f"{points} of {counted(self.images, 'image')}"
        return text if self.segments == 1 else f"{text} in {self.segments} parts of the network"

    @property
    def samples(self) -> int:
        """P·N, images at points, of all chunks that run at the same time."""
        return self.points * self.images * self.at_once

    @property
    def fewest_points(self) -> int:
        """Points of the smallest chunk: with averaged slopes a point and its neighbours."""
        return 3 if self.averages else 1

    def smaller(self) -> "Chunk | None":
        """Fewer chunks at once, points, images, then more segments; None: this is the smallest."""
        if self.at_once > 1:
            return replace(self, at_once=self.at_once // 2)
        if self.points > self.fewest_points:
            return replace(self, points=max(self.points // 2, self.fewest_points))
        if self.images > 1:
            return replace(self, images=self.images // 2)
        if self.segments < MOST_SEGMENTS:
            return replace(self, segments=2 * self.segments)
        return None


class DoesNotFit(ValueError):
    """One point of one image takes more than the budget, even with the most segments."""


def default_budget(device: torch.device) -> int:
    """Give a share of the device's memory in bytes: constant while enough is free."""
    total, available = memory_of(device)
    return int(min(SHARE * total, FREE * available))


def checked_memory(memory: Any) -> int | None:
    """Check a budget in bytes; None: the default.

    Raises
    ------
    TypeError, ValueError
        If it is not a positive integer.
    """
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, Integral):
        raise TypeError(f"memory is {memory!r}; expected a number of bytes")
    if memory <= 0:
        raise ValueError(f"memory is {memory}; expected a positive number of bytes")
    return int(memory)


def fit_chunk(
    plan: Plan, tensors: Mapping[str, Any], x: Tensor, preferred: Chunk, budget: int
) -> Chunk:
    """Shrink a chunk until it fits: fewer points, fewer images, then more segments.

    Parameters
    ----------
    plan : Plan
        Plan to run.
    tensors : mapping of str to Tensor or Moving
        From `faigfast.engine.run.path_tensors`.
    x : Tensor
        [1, C, *spatial], for its shape.
    preferred : Chunk
        Largest chunk.
    budget : int
        Bytes for activations, gradients and gradient sums of one chunk.

    Raises
    ------
    DoesNotFit
        If one point of one image does not fit, with the least that is needed.
    """
    smaller: Chunk | None = preferred
    while smaller and smaller.segments == 1:  # counting takes longer than a smaller chunk costs
        if upper_bound(plan, tensors, smaller) <= budget:
            return smaller
        smaller = smaller.smaller()
    chunk, least = preferred, 0
    while True:
        needed = chunk.at_once * _needed(plan, tensors, x, replace(chunk, at_once=1), budget)
        if needed <= budget:
            return chunk
        # More segments do not help where one operation takes most memory, and counting takes long.
        helped = chunk.segments < 4 or needed < least
        least = min(least or needed, needed)
        # A chunk takes at least its share of the samples' memory: skip chunks that are too large.
        of_sample = needed / chunk.samples
        smaller = chunk.smaller() if helped else None
        while (
            smaller
            and (smaller.points > smaller.fewest_points or smaller.images > 1)
            and smaller.samples * of_sample > budget
        ):
            smaller = smaller.smaller()
        if smaller is None:
            raise DoesNotFit(
                f"memory is {budget} bytes; one image {list(x.shape)} at one point of the line "
                f"{'and its neighbours ' * chunk.averages}needs {least} with everything computed "
                "again that can be"
            )
        chunk = smaller


def _needed(plan: Plan, tensors: Mapping[str, Any], x: Tensor, chunk: Chunk, budget: int) -> int:
    """Bytes of a chunk: counted for this image size, or an upper bound from another count."""
    use, size = in_use(), plan.bytes_of_sample
    counts = plan.needs.setdefault((chunk, use.backend, use.mode, use.values), {})
    if size not in counts:
        if _grows_with_values(plan):
            # The bound scales everything, also gradient sums, which do not grow with the image.
            most = (math.ceil(n * max(1, size / counted)) for counted, n in counts.items())
            if (least := min(most, default=budget + 1)) * chunk.at_once <= budget:
                return least
        counts[size] = int(MARGIN * footprint(plan, tensors, x, chunk))
    return counts[size]


# Operations whose temporary tensors are no larger than their result or a few of their inputs.
_SMALL_INSIDE = {
    aten.cat, aten.pixel_shuffle, aten.pixel_unshuffle, aten.linear, aten.layer_norm,
    aten.group_norm, aten.batch_norm, aten.softmax, aten.mean, aten.sum, aten.pad, aten.roll,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d,
    aten.adaptive_avg_pool2d, aten.avg_pool2d, aten.max_pool2d, aten.prelu, aten.contiguous,
    aten.clone, aten.reshape, aten.flatten, aten.unflatten, aten.index, aten.index_select,
    aten.unbind, aten.stack, aten.bmm, aten.matmul, aten.im2col, aten.var, aten.type_as,
    aten.linalg_vector_norm, aten.mm, aten.addmm, aten.baddbmm, aten._softmax,
    aten._unsafe_view, aten.native_layer_norm, aten.native_group_norm, aten.constant_pad_nd,
    aten.adaptive_max_pool2d, aten.embedding, aten.col2im, aten.repeat, aten.flip, aten.tile,
    aten.gather, aten.scatter, aten.slice_scatter, aten.select_scatter, aten.zeros_like,
    aten.ones_like, aten.full_like, aten.argmax, aten.argmin, aten.max, aten.min, aten.amax,
    aten.amin, aten.sort, aten.topk, aten.cumsum, aten.std, aten.var_mean, aten.grid_sampler_2d,
    aten.fft_fft2, aten.fft_ifft2, aten.fft_rfft2, aten.fft_irfft2,
}  # fmt: skip


def upper_bound(plan: Plan, tensors: Mapping[str, Any], chunk: Chunk) -> float:
    """Upper bound of a chunk's bytes, from the sizes of its values alone.

    Views count nothing; values count once if their operation saves only inputs and results, else
    twice; the largest counts four times more, for gradients on their way. Infinite with more than
    one segment.
    """
    if chunk.segments > 1:
        return math.inf
    nodes = [*plan.fixed, *plan.image, *plan.sample]
    factors = [chunk.averages and is_kinked(node) for node in nodes]
    sizes = [(_saved(n) + more) * plan.size(n) for n, more in zip(nodes, factors, strict=True)]
    values = sum(sizes) + 4 * max(map(plan.size, nodes), default=0) + _inside(plan, nodes)
    weights = sum(
        value.w0.numel() * max(4, value.w0.element_size())
        for value in tensors.values()
        if isinstance(value, Moving)
    )
    return MARGIN * (chunk.samples * values + (6 * chunk.images + 2) * chunk.at_once * weights)


_VIEWS = {
    aten.alias, aten.detach, aten.expand, aten.expand_as, aten.mT, aten.movedim, aten.narrow,
    aten.permute, aten.select, aten.slice, aten.split, aten.squeeze, aten.t, aten.transpose,
    aten.unbind, aten.unsqueeze,
}  # fmt: skip
_SPARING = {
    aten.bmm, aten.cat, aten.flatten, aten.linear, aten.matmul, aten.reshape, aten.softmax,
    aten.unflatten, aten.view,
}  # fmt: skip


def _saved(node: fx.Node) -> int:
    """Memory that an operation saves for its gradient, in units of its value, at most."""
    target: Any = node.target
    packet = getattr(target, "overloadpacket", None)
    if packet in _VIEWS:
        return 0
    pointwise = torch.Tag.pointwise in getattr(target, "tags", ())
    return 1 if pointwise or packet in _SPARING else 2


def _inside(plan: Plan, nodes: Sequence[fx.Node]) -> int:
    """Bytes of temporary tensors inside operations, for one sample, at most."""
    columns, temporaries = 0, 0
    for node in nodes:
        if node.target in CONVOLUTIONS:
            # Torch's own convolution may unfold the image and its gradient into columns.
            weight = node.all_input_nodes[1].meta["val"]
            channels = weight.shape[1] if "transpose" in str(node.target) else 1
            size = plan.size(node.all_input_nodes[0])
            columns = max(columns, 2 * channels * weight.shape[2:].numel() * size)
        elif node.target is aten.matmul.default:  # copies broadcast operands
            batch = math.prod(node.meta["val"].shape[:-2])
            for part in node.all_input_nodes:
                own = math.prod(part.meta["val"].shape[:-2])
                temporaries += (
                    plan.size(part) * batch // max(own, 1) if part.meta["val"].ndim > 2 else 0
                )
        elif not _is_small_inside(node):  # unknown: one number for each pair of input numbers
            parts = [part for part in node.all_input_nodes if "place" in part.meta]
            given = sum(plan.size(part) // part.meta["val"].dtype.itemsize for part in parts)
            temporaries += 3 * 8 * given**2
    return columns + temporaries


def _is_small_inside(node: fx.Node) -> bool:
    target: Any = node.target
    return (
        node.op == "get_attr"
        or target is operator.getitem
        or torch.Tag.pointwise in target.tags
        or target.overloadpacket in _SMALL_INSIDE
        or (target is aten.einsum.default and len(node.all_input_nodes) <= 2)  # one bmm
        or any(argument.alias_info is not None for argument in target._schema.arguments)
    )


def _grows_with_values(plan: Plan) -> bool:
    """Whether memory grows no faster than the values, from one image size to the next."""
    return all(_is_small_inside(node) or node.target in CONVOLUTIONS for node in plan.sample)


def footprint(plan: Plan, tensors: Mapping[str, Any], x: Tensor, chunk: Chunk) -> int:
    """Count the bytes that forward and backward of a chunk hold at their peak.

    The plan runs on tensors without data, beside the gradient sums of earlier points. The count
    leaves out the line itself and scratch memory inside library calls.
    """
    notes = dict(plan.notes)  # drop notes of the run without data
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.enable_grad():

        def empty(value: Any) -> Any:
            if not isinstance(value, Moving):
                return fake.from_tensor(value, static_shapes=True)
            w0 = fake.from_tensor(value.w0.detach(), static_shapes=True)
            return Moving(w0, w0, w0)

        given = {key: empty(value) for key, value in tensors.items()}
        images = fake.from_tensor(x, static_shapes=True).expand(chunk.images, *x.shape[1:])
        with _Counter() as counter:
            given = with_gradient_sums(given, chunk.images)
            gradient_sums = [
                value.gradient_sums for value in given.values() if isinstance(value, Moving)
            ]
            for part in gradient_sums:
                part.grad = part.new_zeros(part.shape)
            # Sums of earlier steps, of a coarser rule, and of a chain until its end.
            others = [part.new_zeros(part.shape) for part in 3 * gradient_sums]
            values = prepare(plan, given, images.clone())
            ends = [[-0.5, 0.5]] * chunk.points if chunk.averages else None
            points = Points.at([0.0] * chunk.points, images, ends)
            out = forward(plan, values, points, chunk.segments)
            parts = [part.data for part in tree_leaves(out) if isinstance(part, Samples)]
            total = torch.stack([part.square().sum() for part in parts]).sum()
            del out, parts
            if total.requires_grad:
                total.backward()
            del others
    plan.notes.clear()
    plan.notes.update(notes)
    return counter.peak


class _Counter(TorchDispatchMode):
    """Counts the bytes of all live tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # Run faigfast's operations as plain PyTorch, so that tensors inside them count too.
        run = plain(func) or func
        if run is func:
            out = func(*args, **(kwargs or {}))
        else:
            with self:
                out = run(*args, **(kwargs or {}))
        self.peak = max(self.peak, self.now + _columns(func, args))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage not in self.storages:
                    size = storage.nbytes()
                    self.storages.add(storage)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, size)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def _columns(func: Any, args: tuple[Any, ...]) -> int:
    """Bytes of unfolded columns in torch's own convolutions, which run where oneDNN does not."""
    if func is aten.convolution.default:
        times, (x, w, bias, *geometry) = 1, args
    elif func is aten.convolution_backward.default:
        times, (_, x, w, bias, *geometry) = 2, args  # of the input, and of its gradient
        bias, geometry = None, geometry[:-1]
    else:
        return 0
    kernel = torch._C._select_conv_backend(x, w, bias, *geometry)
    if not kernel.name.startswith("Slow"):
        return 0
    stride, padding, dilation, transposed, _, groups = geometry
    sizes = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    pixels = [
        side if transposed else (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, s, p, d in sizes
    ]
    channels = w.shape[1] * (1 if transposed else groups)
    return int(times * len(x) * channels * w[0, 0].numel() * math.prod(pixels) * x.element_size())
