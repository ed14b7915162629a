"""Values of many samples at once, and operations without parameters on them."""

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
class Samples:
    """One value of the graph at P points for N images.

    Parameters
    ----------
    data : Tensor
        [P, N, *own], where `own` is the shape for one image alone; [1, N, *own] where all points
        share a value, [P, 1, *own] where all images do.
    """

    data: Tensor

    @property
    def own(self) -> torch.Size:
        """Shape for one image at one point."""
        return self.data.shape[2:]


# Operations that treat the first of four dimensions as independent samples.
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


def _native_group_norm(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return aten.native_group_norm.default(x.contiguous(), *rest)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    norm = torch.norm_except_dim(v, 2, dim)
    return v * (g / norm), norm


# A view in the graph need not be a view of all samples, and the graph has the strides of
# contiguous tensors, which fused weight and group norms demand. Under vmap, slice_scatter takes no
# open end and select_scatter has a wrong gradient (torch 2.13).
REPLACEMENTS: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten._weight_norm_interface.default: _weight_norm,
    aten.native_group_norm.default: _native_group_norm,
    aten.as_strided.default: _as_strided,
    aten.view_as_complex.default: _view_as_complex,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
}


def takes_batches(op: Any) -> bool:
    """Whether an operation without parameters can serve many samples without `vmap`."""
    packet = getattr(op, "overloadpacket", None)
    pointwise = torch.Tag.pointwise in getattr(op, "tags", ())
    return pointwise or packet in _BATCHED or op is aten.cat.default


def apply(op: Any, args: Any, kwargs: Any) -> tuple[Any, str]:
    """Let an operation act on each sample alone, in the fastest way that serves it.

    Parameters
    ----------
    op : OpOverload or callable
        Its arguments may hold `Samples` at any depth.

    Returns
    -------
    value
        Result of the operation, with `Samples` in place of tensors.
    note : str
        What ran slowly, and why; empty otherwise.
    """
    leaves, spec = tree_flatten((args, kwargs))
    samples = [leaf for leaf in leaves if isinstance(leaf, Samples)]
    if not samples:
        return REPLACEMENTS.get(op, op)(*args, **kwargs), ""
    if torch.Tag.pointwise in getattr(op, "tags", ()):
        return _pointwise(op, leaves, spec), ""
    if getattr(op, "overloadpacket", None) in _BATCHED and len(samples) == 1:
        x = args[0]
        if isinstance(x, Samples) and len(x.own) == 4:
            return _batched(op, x, args[1:], kwargs), ""
    if op is aten.cat.default:
        parts, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
        images = all(isinstance(x, Samples) and len(x.own) > 2 for x in parts)
        if images and dim % len(parts[0].own) == 1:
            return _concatenate_channels(parts), ""
    op = REPLACEMENTS.get(op, op)
    if op is _as_strided:
        leaves = [Samples(x.data.contiguous()) if isinstance(x, Samples) else x for x in leaves]
    try:
        with _no_vmap_fallback():
            return _mapped(op, leaves, spec), ""
    except (RuntimeError, NotImplementedError, ValueError) as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        return looped(op, leaves, spec), f"{op} runs sample by sample: {reason[:160]}"


def sample_by_sample(op: Any, args: Any, kwargs: Any) -> Any:
    """Let an operation act on one sample at a time."""
    return looped(op, *tree_flatten((args, kwargs)))


def _pointwise(op: Any, leaves: list[Any], spec: Any) -> Any:
    """Broadcasting aligns last dimensions: insert sizes of 1 before each sample's own shape."""
    rank = max(x.data.ndim for x in leaves if isinstance(x, Samples))
    rank = max(rank, 2 + max((x.ndim for x in leaves if isinstance(x, Tensor)), default=0))

    def aligned(x: Any) -> Any:
        if not isinstance(x, Samples):
            return x
        missing = [1] * (rank - x.data.ndim)
        return x.data.reshape(*x.data.shape[:2], *missing, *x.own)

    args, kwargs = tree_unflatten([aligned(x) for x in leaves], spec)
    return tree_map(Samples, op(*args, **kwargs))


def _batched(op: Any, x: Samples, rest: Any, kwargs: Any) -> Samples:
    lead = x.data.shape[:3]
    if op is aten.upsample_nearest2d.vec and upsampling.serves(x.data):
        op = upsampling.upsample_nearest
    y = op(_Batch.apply(x.data.flatten(0, 2)), *rest, **kwargs)
    return Samples(_Batch.apply(y).unflatten(0, lead))


def _concatenate_channels(parts: Sequence[Samples]) -> Samples:
    """Concatenate channels into a channels-last tensor, as the next convolution takes it."""
    lead = [_extent(list(parts), dim) for dim in (0, 1)]
    data = [x.data.expand(*lead, *x.own).movedim(3, -1) for x in parts]
    return Samples(torch.cat(data, -1).movedim(-1, 3))


class _Batch(torch.autograd.Function):
    """Changes only the stride of a batch of one, forward and backward: see `one_batch`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return one_batch(x)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return one_batch(gy)


def _extent(leaves: list[Any], dim: int) -> int:
    return max(x.data.shape[dim] for x in leaves if isinstance(x, Samples))


def _mapped(op: Any, leaves: list[Any], spec: Any) -> Any:
    """Map over images inside and points outside; shared values are not copied."""
    points, images = _extent(leaves, 0), _extent(leaves, 1)

    out_specs: list[Any] = []

    def of_sample(*values: Any) -> tuple[Tensor, ...]:
        args, kwargs = tree_unflatten(list(values), spec)
        out, out_spec = tree_flatten(op(*args, **kwargs))
        out_specs[:] = [out_spec]
        return tuple(out)

    function: Callable[..., Any] = of_sample
    data = [x.data if isinstance(x, Samples) else x for x in leaves]
    for dim, extent in ((1, images), (0, points)):
        varies = [isinstance(x, Samples) and x.data.shape[dim] > 1 for x in leaves]
        data = [
            d.squeeze(dim) if isinstance(x, Samples) and not varying else d
            for d, x, varying in zip(data, leaves, varies, strict=True)
        ]
        if extent > 1:
            dims = tuple(0 if varying else None for varying in varies)
            function = vmap(function, in_dims=dims, randomness="error")
    mapped = (points > 1) + (images > 1)
    parts = [part.reshape(points, images, *part.shape[mapped:]) for part in function(*data)]
    return tree_unflatten([Samples(part) for part in parts], out_specs[0])


def looped(op: Any, leaves: list[Any], spec: Any) -> Any:
    """As `_mapped`, one sample at a time."""
    points, images = _extent(leaves, 0), _extent(leaves, 1)
    outputs: list[list[Tensor]] = []
    out_spec: Any = None
    for p in range(points):
        for n in range(images):
            sample = [
                x.data[p % len(x.data), n % x.data.shape[1]] if isinstance(x, Samples) else x
                for x in leaves
            ]
            args, kwargs = tree_unflatten(sample, spec)
            out, out_spec = tree_flatten(op(*args, **kwargs))
            outputs.append(out)
    stacked = [
        torch.stack(part).unflatten(0, (points, images)) for part in zip(*outputs, strict=True)
    ]
    return tree_unflatten([Samples(part) for part in stacked], out_spec)


@contextmanager
def _no_vmap_fallback() -> Iterator[None]:
    """Turn vmap's own loops into errors: ours are not slower, and leave a note."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)
