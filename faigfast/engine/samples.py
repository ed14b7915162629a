"""Values of many samples at once, and how an operation without parameters acts on them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from faigfast.ops import upsampling
from faigfast.ops.path_values import one_batch

aten = torch.ops.aten


@dataclass(frozen=True)
class Folded:
    """One value of the graph at P points for N images.

    Parameters
    ----------
    data : Tensor
        [P, N, *own], where `own` is the shape for one image alone; [1, N, *own] of what all points
        share, [P, 1, *own] of what all images share.
    """

    data: Tensor

    @property
    def own(self) -> torch.Size:
        """Shape for one image at one point."""
        return self.data.shape[2:]


# These treat the first of four dimensions as independent samples.
_BATCHED = {
    aten.pixel_shuffle,
    aten.pixel_unshuffle,
    aten.upsample_nearest2d,
    aten._upsample_nearest_exact2d,
    aten.upsample_bilinear2d,
    aten.upsample_bicubic2d,
    aten._upsample_bilinear2d_aa,
    aten._upsample_bicubic2d_aa,
    aten.avg_pool2d,
    aten.max_pool2d,
    aten.adaptive_avg_pool2d,
    aten.pad,
    aten.conv2d,
    aten.conv_transpose2d,
}


def _slice_scatter(x: Tensor, source: Tensor, dim: int = 0, start: Any = None, end: Any = None,
                   step: int = 1) -> Tensor:  # fmt: skip
    end = x.shape[dim] if end is None else min(end, x.shape[dim])
    return aten.slice_scatter.default(x, source, dim, start, end, step)


def _select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    index = index % x.shape[dim]
    return _slice_scatter(x, source.unsqueeze(dim), dim, index, index + 1)


def _as_strided(x: Tensor, *geometry: Any) -> Tensor:
    return aten.as_strided.default(x.contiguous(), *geometry)


def _view_as_complex(x: Tensor) -> Tensor:
    return aten.view_as_complex.default(x.contiguous())


# Views of a graph's tensors need not be views of the folded ones, and strides are those of
# contiguous tensors. Mapped, slice_scatter takes no open end and select_scatter has a wrong
# gradient (torch 2.13).
ALIKE: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten.as_strided.default: _as_strided,
    aten.view_as_complex.default: _view_as_complex,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
}


def apply(op: Any, args: Any, kwargs: Any) -> tuple[Any, str]:
    """Let an operation act on each sample alone, by the fastest way that there is.

    Parameters
    ----------
    op : OpOverload or callable
        An operation; its arguments may hold `Folded` at any depth.

    Returns
    -------
    value
        As the operation gives it, tensors `Folded`.
    note : str
        What went slowly, and why; empty otherwise.
    """
    leaves, spec = tree_flatten((args, kwargs))
    folded = [leaf for leaf in leaves if isinstance(leaf, Folded)]
    if not folded:
        return op(*args, **kwargs), ""
    if torch.Tag.pointwise in getattr(op, "tags", ()):
        return _pointwise(op, leaves, spec), ""
    if getattr(op, "overloadpacket", None) in _BATCHED and len(folded) == 1:
        x = args[0]
        if isinstance(x, Folded) and len(x.own) == 4:
            return _batched(op, x, args[1:], kwargs), ""
    if op is aten.cat.default:
        parts, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
        images = all(isinstance(x, Folded) and len(x.own) > 2 for x in parts)
        if images and dim % len(parts[0].own) == 1:
            return _channels_joined(parts), ""
    op = ALIKE.get(op, op)
    if op is _as_strided:
        leaves = [Folded(x.data.contiguous()) if isinstance(x, Folded) else x for x in leaves]
    try:
        with _patient():
            return _mapped(op, leaves, spec), ""
    except (RuntimeError, NotImplementedError, ValueError) as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        return looped(op, leaves, spec), f"{op} runs sample by sample: {reason[:160]}"


def sample_by_sample(op: Any, args: Any, kwargs: Any) -> Any:
    """Let an operation act on one sample after the other."""
    return looped(op, *tree_flatten((args, kwargs)))


def _pointwise(op: Any, leaves: list[Any], spec: Any) -> Any:
    """Broadcasting aligns last dimensions: fill those between samples and own ones."""
    rank = max(x.data.ndim for x in leaves if isinstance(x, Folded))
    rank = max(rank, 2 + max((x.ndim for x in leaves if isinstance(x, Tensor)), default=0))

    def aligned(x: Any) -> Any:
        if not isinstance(x, Folded):
            return x
        missing = [1] * (rank - x.data.ndim)
        return x.data.reshape(*x.data.shape[:2], *missing, *x.own)

    args, kwargs = tree_unflatten([aligned(x) for x in leaves], spec)
    return tree_map(Folded, op(*args, **kwargs))


def _batched(op: Any, x: Folded, rest: Any, kwargs: Any) -> Folded:
    lead = x.data.shape[:3]
    if op is aten.upsample_nearest2d.vec and upsampling.serves(x.data):
        op = upsampling.upsample_nearest
    y = op(_Batch.apply(x.data.flatten(0, 2)), *rest, **kwargs)
    return Folded(_Batch.apply(y).unflatten(0, lead))


def _channels_joined(parts: Sequence[Folded]) -> Folded:
    """Concatenate channels, laid out channels-last as the convolutions before and after."""
    lead = [_extent(list(parts), dim) for dim in (0, 1)]
    data = [x.data.expand(*lead, *x.own).movedim(3, -1) for x in parts]
    return Folded(torch.cat(data, -1).movedim(-1, 3))


class _Batch(torch.autograd.Function):
    """Changes nothing but the stride of a batch of one, here and in backward: see `one_batch`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return one_batch(x)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return one_batch(gy)


def _extent(leaves: list[Any], dim: int) -> int:
    return max(x.data.shape[dim] for x in leaves if isinstance(x, Folded))


def _mapped(op: Any, leaves: list[Any], spec: Any) -> Any:
    """Map over images inside and points outside; what is shared is not multiplied."""
    points, images = _extent(leaves, 0), _extent(leaves, 1)

    shape: list[Any] = []

    def single(*values: Any) -> tuple[Tensor, ...]:
        args, kwargs = tree_unflatten(list(values), spec)
        out, out_spec = tree_flatten(op(*args, **kwargs))
        shape[:] = [out_spec]
        return tuple(out)

    function: Callable[..., Any] = single
    data = [x.data if isinstance(x, Folded) else x for x in leaves]
    for dim, extent in ((1, images), (0, points)):
        own = [isinstance(x, Folded) and x.data.shape[dim] > 1 for x in leaves]
        data = [
            d.squeeze(dim) if isinstance(x, Folded) and not several else d
            for d, x, several in zip(data, leaves, own, strict=True)
        ]
        if extent > 1:
            dims = tuple(0 if several else None for several in own)
            function = vmap(function, in_dims=dims, randomness="error")
    mapped = (points > 1) + (images > 1)
    parts = [part.reshape(points, images, *part.shape[mapped:]) for part in function(*data)]
    return tree_unflatten([Folded(part) for part in parts], shape[0])


def looped(op: Any, leaves: list[Any], spec: Any) -> Any:
    """As `_mapped`, one sample after the other."""
    points, images = _extent(leaves, 0), _extent(leaves, 1)
    found: list[list[Tensor]] = []
    out_spec: Any = None
    for p in range(points):
        for n in range(images):
            sample = [
                x.data[p % len(x.data), n % x.data.shape[1]] if isinstance(x, Folded) else x
                for x in leaves
            ]
            args, kwargs = tree_unflatten(sample, spec)
            out, out_spec = tree_flatten(op(*args, **kwargs))
            found.append(out)
    stacked = [
        torch.stack(part).unflatten(0, (points, images)) for part in zip(*found, strict=True)
    ]
    return tree_unflatten([Folded(part) for part in stacked], out_spec)


@contextmanager
def _patient() -> Iterator[None]:
    """Turn vmap's own loops into errors: ours are not slower, and are told of."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)
