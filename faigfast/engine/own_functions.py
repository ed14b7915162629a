"""Custom autograd functions: ordinary operations if their written gradient is the ordinary one.

A trace sees the operations of `forward`, but not what `backward` computes. While a network is
recorded, `forward` therefore runs as ordinary code; afterwards the written gradient of each
function is compared with the gradient of these operations.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointFunction

# Factors of arguments and of upstream gradients: a clamp of either shows at one of the pairs.
SCALES = ((1.0, 1e4), (4.0, 1e-4))
TOLERANCE = 1e-3  # relative to the largest value of a gradient

Calls = dict[Any, tuple[type[Function], Sequence[Any]]]


@contextmanager
def as_ordinary_code() -> Iterator[Calls]:
    """Run `forward` of this thread's autograd functions as ordinary code.

    Yields
    ------
    dict
        One call for every function and arguments' shapes, by both; see `own_gradients`.
    """
    calls: Calls = {}
    original, here = vars(Function)["apply"], threading.get_ident()

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != here or kwargs:
            return original.__func__(cls, *args, **kwargs)
        if cls is CheckpointFunction:
            run, _, *rest = args
            return run(*rest)
        if cls.__module__.startswith("torch."):
            return original.__func__(cls, *args)
        shapes = tuple(a.shape if isinstance(a, Tensor) else repr(a) for a in args)
        calls.setdefault((cls, shapes), (cls, args))
        return _forward(cls, args)

    Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield calls
    finally:
        Function.apply = original  # type: ignore[method-assign]


def own_gradients(calls: Calls) -> list[str]:
    """Name the functions whose written gradient is not that of their operations."""
    names = [cls.__qualname__ for cls, args in calls.values() if not _ordinary(cls, args)]
    return list(dict.fromkeys(names))


class _Context:
    """Replaces the context that autograd gives to `forward`."""

    def __init__(self, args: Sequence[Any]) -> None:
        self.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        self.constants: tuple[Any, ...] = ()

    def mark_non_differentiable(self, *values: Any) -> None:
        self.constants += values

    def save_for_backward(self, *values: Any) -> None:
        """Keep nothing, since `backward` never runs with this context."""

    save_for_forward = mark_dirty = set_materialize_grads = save_for_backward


def _forward(cls: Any, args: Sequence[Any]) -> Any:
    context = _Context(args)
    if cls.setup_context is Function.setup_context:
        output = cls.forward(context, *args)
    else:
        output = cls.forward(*args)
        cls.setup_context(context, tuple(args), output)
    if not context.constants:
        return output
    parts = output if isinstance(output, tuple) else (output,)
    parts = tuple(p.detach() if any(p is c for c in context.constants) else p for p in parts)
    return parts if isinstance(output, tuple) else parts[0]


def _ordinary(cls: Any, args: Sequence[Any]) -> bool:
    """Whether a function has its operations' gradient, at arguments of several scales."""
    try:
        return all(_gradients_agree(cls, args, *scales) for scales in SCALES)
    except Exception:  # the function does not take such arguments
        return False


def _gradients_agree(cls: Any, args: Sequence[Any], scale: float, factor: float) -> bool:
    written = _gradients(cls.apply, args, scale, factor)
    ordinary = _gradients(lambda *values: _forward(cls, values), args, scale, factor)
    for one, other in zip(written, ordinary, strict=True):
        size = max(float(part.abs().max()) if part.numel() else 0.0 for part in (one, other))
        if not torch.allclose(one, other, rtol=0, atol=TOLERANCE * size, equal_nan=True):
            return False
    return True


def _gradients(
    function: Callable[..., Any], args: Sequence[Any], scale: float, factor: float
) -> list[Tensor]:
    with torch.enable_grad():
        given = [_argument(a, scale) for a in args]
        leaves = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
        # `+ 0`, since a function may write to its arguments, but nothing may write to leaves.
        result = function(
            *(a + 0 if isinstance(a, Tensor) and a.requires_grad else a for a in given)
        )
        outputs = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        outputs = [part for part in outputs if part.requires_grad]
        if not outputs or not leaves:
            return [torch.zeros_like(leaf) for leaf in leaves]
        factors = [factor * _pattern(part) for part in outputs]
        gradients = torch.autograd.grad(outputs, leaves, factors, allow_unused=True)
    pairs = zip(gradients, leaves, strict=True)
    return [torch.zeros_like(leaf) if g is None else g.detach() for g, leaf in pairs]


def _argument(value: Any, scale: float) -> Any:
    """Give an argument scaled and shifted, as a leaf."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().clone()
    if not value.is_floating_point():
        return value
    return (scale * value + 0.1 * scale * _pattern(value)).requires_grad_()


def _pattern(like: Tensor) -> Tensor:
    """Give fixed numbers in [-1, 1] that differ from value to value."""
    places = torch.arange(like.numel(), dtype=torch.float32, device=like.device)
    return (7.0 * places + 1.0).cos().to(like.dtype).view(like.shape)
