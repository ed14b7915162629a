"""Memory: what running a plan takes, counted without data, and chunks that fit a budget."""

import math
import operator
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faigfast.engine.op_rules import CONVOLUTIONS, Moving, Points
from faigfast.engine.run import Plan, forward, prepare, with_sums
from faigfast.engine.samples import Folded
from faigfast.ops.registry import in_use, plain

aten = torch.ops.aten

SHARE = 0.25  # of the machine's memory, where no budget is given
FREE = 0.8  # of what is free, where that is less
MOST_SEGMENTS = 32
MARGIN = 1.15  # for copies inside library calls


@dataclass(frozen=True)
class Chunk:
    """How much is held at once.

    Parameters
    ----------
    points, images : int
        P and N of a chunk.
    segments : int
        Into how many the network is cut; in more than one, inner values are computed again.
    at_once : int
        How many chunks run at the same time, each in a thread.
    """

    points: int
    images: int
    segments: int = 1
    at_once: int = 1

    @property
    def samples(self) -> int:
        """P·N, images at points, of all chunks that run at the same time."""
        return self.points * self.images * self.at_once

    def smaller(self) -> "Chunk | None":
        """Fewer at once, points, then images, then values computed again; None: all is done."""
        if self.at_once > 1:
            return replace(self, at_once=self.at_once // 2)
        if self.points > 1:
            return replace(self, points=self.points // 2)
        if self.images > 1:
            return replace(self, images=self.images // 2)
        if self.segments < MOST_SEGMENTS:
            return replace(self, segments=2 * self.segments)
        return None


class DoesNotFit(ValueError):
    """One point of one image takes more than the budget, even with values computed again."""


def default_budget(device: torch.device) -> int:
    """Give a share of the device's memory in bytes: the same while enough is free."""
    total, free = _on_card(device) if device.type == "cuda" else _of_machine()
    return int(min(SHARE * total, FREE * free))


def _on_card(device: torch.device) -> tuple[int, int]:
    """All memory of a GPU, and what is free, with what torch holds and does not use."""
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return total, free + unused


def _of_machine() -> tuple[int, int]:
    """All memory of the machine, or of the container, and what of the machine's is available."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        file = Path("/sys/fs/cgroup") / name
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            total = min(total, int(text))
    known = Path("/proc/meminfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    available = (int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    return total, next(available, total)


def fitted(plan: Plan, leaves: Mapping[str, Any], x: Tensor, wanted: Chunk, budget: int) -> Chunk:
    """Shrink a chunk until it fits: fewer points, fewer images, then values computed again.

    Parameters
    ----------
    plan : Plan
        What is run.
    leaves : mapping of str to Tensor or Moving
        From `faigfast.engine.run.leaves`.
    x : Tensor
        [1, C, *spatial], for its shape.
    wanted : Chunk
        The largest.
    budget : int
        Bytes, for activations, gradients and sums of one chunk.

    Raises
    ------
    DoesNotFit
        If one point of one image does not fit, with the least that is needed.
    """
    smaller: Chunk | None = wanted
    while smaller and smaller.segments == 1:  # to count takes longer than a smaller chunk costs
        if bound(plan, leaves, smaller) <= budget:
            return smaller
        smaller = smaller.smaller()
    chunk, least = wanted, 0
    while True:
        needed = chunk.at_once * _needed(plan, leaves, x, replace(chunk, at_once=1), budget)
        if needed <= budget:
            return chunk
        # Where one operation takes it all, cutting the network does not help; counting takes long.
        helped = chunk.segments < 4 or needed < least
        least = min(least or needed, needed)
        # Fewer samples take no less than their share: what is too large anyway is not counted.
        of_sample = needed / chunk.samples
        smaller = chunk.smaller() if helped else None
        while smaller and smaller.samples > 1 and smaller.samples * of_sample > budget:
            smaller = smaller.smaller()
        if smaller is None:
            raise DoesNotFit(
                f"memory is {budget} bytes; one image {list(x.shape)} at one point of the line "
                f"needs {least} with everything computed again that can be"
            )
        chunk = smaller


def _needed(plan: Plan, leaves: Mapping[str, Any], x: Tensor, chunk: Chunk, budget: int) -> int:
    """Bytes of a chunk: as counted for this size, or no more, from a size where it was counted."""
    use, size = in_use(), plan.bytes_of_sample
    counts = plan.needs.setdefault((chunk, use.backend, use.mode, use.values), {})
    if size not in counts:
        if _grows_with_values(plan):
            # What does not grow with the image, such as sums, is taken to grow too.
            most = (math.ceil(n * max(1, size / known)) for known, n in counts.items())
            if (least := min(most, default=budget + 1)) * chunk.at_once <= budget:
                return least
        counts[size] = int(MARGIN * footprint(plan, leaves, x, chunk))
    return counts[size]


# What these make inside is no larger than what they give, or than a few of what they take.
_PLAIN = {
    aten.cat, aten.pixel_shuffle, aten.pixel_unshuffle, aten.linear, aten.layer_norm,
    aten.group_norm, aten.batch_norm, aten.softmax, aten.mean, aten.sum, aten.pad, aten.roll,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d,
    aten.adaptive_avg_pool2d, aten.avg_pool2d, aten.max_pool2d, aten.prelu, aten.contiguous,
    aten.clone, aten.reshape, aten.flatten, aten.unflatten, aten.index, aten.index_select,
    aten.unbind, aten.stack, aten.bmm, aten.matmul, aten.im2col, aten.var, aten.type_as,
    aten.linalg_vector_norm,
}  # fmt: skip


def bound(plan: Plan, leaves: Mapping[str, Any], chunk: Chunk) -> float:
    """Bytes that a chunk does not reach, from the sizes of its values alone.

    Views count nothing, values of operations that save no more than what they take and give once,
    others twice, and the largest four times more, for gradients on their way; infinite where parts
    are computed again.
    """
    if chunk.segments > 1:
        return math.inf
    nodes = [*plan.fixed, *plan.image, *plan.sample]
    sizes = [_saved(node) * plan.size(node) for node in nodes]
    values = sum(sizes) + 4 * max(map(plan.size, nodes), default=0) + _inside(plan, nodes)
    weights = sum(
        value.w0.numel() * max(4, value.w0.element_size())
        for value in leaves.values()
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
    """How many times as much as its value an operation keeps for its gradient, at most."""
    target: Any = node.target
    packet = getattr(target, "overloadpacket", None)
    if packet in _VIEWS:
        return 0
    pointwise = torch.Tag.pointwise in getattr(target, "tags", ())
    return 1 if pointwise or packet in _SPARING else 2


def _inside(plan: Plan, nodes: Sequence[fx.Node]) -> int:
    """Bytes that operations make of one sample beside their values, at most."""
    columns, others = 0, 0
    for node in nodes:
        if node.target in CONVOLUTIONS:
            # Torch's own convolution may make the image in columns, and those of its gradient.
            weight = node.all_input_nodes[1].meta["val"]
            fold = weight.shape[1] if "transpose" in str(node.target) else 1
            size = plan.size(node.all_input_nodes[0])
            columns = max(columns, 2 * fold * weight.shape[2:].numel() * size)
        elif node.target is aten.matmul.default:  # copies what it broadcasts
            batch = math.prod(node.meta["val"].shape[:-2])
            for part in node.all_input_nodes:
                own = math.prod(part.meta["val"].shape[:-2])
                others += plan.size(part) * batch // max(own, 1) if part.meta["val"].ndim > 2 else 0
        elif not _is_plain(node):  # as many as pairs of numbers that it is given
            parts = [part for part in node.all_input_nodes if "place" in part.meta]
            given = sum(plan.size(part) // part.meta["val"].dtype.itemsize for part in parts)
            others += 3 * 8 * given**2
    return columns + others


def _is_plain(node: fx.Node) -> bool:
    target: Any = node.target
    return (
        node.op == "get_attr"
        or target is operator.getitem
        or torch.Tag.pointwise in target.tags
        or target.overloadpacket in _PLAIN
        or any(argument.alias_info is not None for argument in target._schema.arguments)
    )


def _grows_with_values(plan: Plan) -> bool:
    """Whether memory grows no faster than the values do, from one image size to the next."""
    return all(_is_plain(node) or node.target in CONVOLUTIONS for node in plan.sample)


def footprint(plan: Plan, leaves: Mapping[str, Any], x: Tensor, chunk: Chunk) -> int:
    """Count the bytes that forward and backward of a chunk hold at their peak.

    The plan runs on tensors without data, beside the sums of points before. The line itself, which
    is there anyway, and the scratch memory inside of library calls are not counted.
    """
    notes = dict(plan.notes)  # what cannot be done without data is no news
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.enable_grad():

        def empty(value: Any) -> Any:
            if not isinstance(value, Moving):
                return fake.from_tensor(value, static_shapes=True)
            w0 = fake.from_tensor(value.w0.detach(), static_shapes=True)
            return Moving(w0, w0, w0)

        given = {key: empty(value) for key, value in leaves.items()}
        images = fake.from_tensor(x, static_shapes=True).expand(chunk.images, *x.shape[1:])
        with _Counter() as counter:
            given = with_sums(given, chunk.images)
            sums = [value.sums for value in given.values() if isinstance(value, Moving)]
            for part in sums:
                part.grad = part.new_zeros(part.shape)
            # Those of steps before, of a coarser rule, and what a chain gives at its end alone.
            before = [part.new_zeros(part.shape) for part in (*sums, *sums, *sums)]
            values = prepare(plan, given, images.clone())
            points = Points.at([0.0] * chunk.points, images)
            out = forward(plan, values, points, chunk.segments)
            parts = [part.data for part in tree_leaves(out) if isinstance(part, Folded)]
            total = torch.stack([part.square().sum() for part in parts]).sum()
            del out, parts
            if total.requires_grad:
                total.backward()
            del before
    plan.notes.clear()
    plan.notes.update(notes)
    return counter.peak


class _Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # Operations of faigfast as plain PyTorch, so that what they hold inside counts too.
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
                if storage not in self.known:
                    size = storage.nbytes()
                    self.known.add(storage)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, size)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def _columns(func: Any, args: tuple[Any, ...]) -> int:
    """Bytes of the image in columns that torch's own convolutions make where oneDNN has none."""
    if func is aten.convolution.default:
        times, (x, w, bias, *geometry) = 1, args
    elif func is aten.convolution_backward.default:
        times, (_, x, w, bias, *geometry) = 2, args  # of what goes in, and of its gradient
        bias, geometry = None, geometry[:-1]
    else:
        return 0
    chosen = torch._C._select_conv_backend(x, w, bias, *geometry)
    if not chosen.name.startswith("Slow"):
        return 0
    stride, padding, dilation, transposed, _, groups = geometry
    sizes = zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    pixels = [
        side if transposed else (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, s, p, d in sizes
    ]
    channels = w.shape[1] * (1 if transposed else groups)
    return int(times * len(x) * channels * w[0, 0].numel() * math.prod(pixels) * x.element_size())
