"""The table of kernels: chooses one for an operation, and records why others refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


@dataclass(frozen=True)
class Kernel:
    """One way of computing an operation.

    Parameters
    ----------
    name : str
        Name of the kernel.
    run : callable
        Takes the operation's arguments.
    refuses : callable
        Takes the same arguments; gives the reason why the kernel does not serve them, or "".
    backend : str
        Backend of the kernel; "": all backends.
    notes_refusal : bool
        Whether a refusal becomes a note; not if the backend has another kernel as well.
    """

    name: str
    run: Callable[..., Any]
    refuses: Callable[..., str]
    backend: str = ""
    notes_refusal: bool = True


KERNELS: dict[str, list[Kernel]] = {}
NOUNS = {"conv": "convolutions", "linear": "linear layers"}  # of operations, in notes


@dataclass(frozen=True)
class Use:
    """The backend whose kernels may run, and their refusals.

    Parameters
    ----------
    backend : str
        Its kernels may run beside kernels without a backend; "": only those without.
    refused : dict of str to None
        Collects refusals of the backend's kernels, with their reasons.
    mode : str
        How kernels multiply float32: "ieee", "tf32", "bf16x3" by three products of bfloat16, or
        "bf16": factors in the gradients of convolutions are rounded to it, on a CPU.
    values : torch.dtype, optional
        Type of activations, if tensors on the line are wider.
    scale : GradientScale, optional
        Keeps gradients in the range of `values`.
    preference : Preference, optional
        Operations for which the card's table asks another backend's kernel first.
    packed_weights : dict
        Weights in the order of kernels, for their next run in the same call.
    phases : int
        G: gradient sums are [G·N, *w], those of every G-th point of all images, from the first
        point, the second, …, one after the other; the number of points is a multiple of G.
    """

    backend: str = ""
    refused: dict[str, None] = field(default_factory=dict)
    mode: str = "ieee"
    values: torch.dtype | None = None
    scale: Any = None
    preference: Any = None
    packed_weights: dict[Any, Any] = field(default_factory=dict)
    phases: int = 1


_use: ContextVar[Use | None] = ContextVar("_use", default=None)


def in_use() -> Use:
    """Give the `Use` that `using` set in this context."""
    return _use.get() or Use()


def is_observed() -> bool:
    """Whether a mode, a transform or a compiler has to see single operations."""
    return (
        is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )


@contextmanager
def using(use: Use) -> Iterator[None]:
    """Run operations, and their gradients later, with a backend's kernels."""
    token = _use.set(use)
    try:
        yield
    finally:
        _use.reset(token)


class Operation:
    """A torch operation made of a plain PyTorch function, which is its last kernel.

    Its name in `torch.ops.faigfast` is the function's. Called through this object it skips torch's
    dispatcher, which would cost a fifth of a millisecond each time, unless a mode is active.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        update_wrapper(self, plain)
        self.name = plain.__name__
        KERNELS[self.name] = [Kernel("plain", plain, lambda *_: "")]
        schema = torch.library.infer_schema(plain, mutates_args=())
        self.defined = torch.library.custom_op(
            f"faigfast::{self.name}", self._run, mutates_args=(), schema=schema
        )
        # Plain PyTorch also runs on tensors without data, and gives the result's layout.
        self.defined.register_fake(plain)
        self._call: Callable[..., Any] = self._run

    def __call__(self, *args: Any) -> Any:
        """Compute the operation; it has a gradient after `register_autograd`."""
        # Traces and tensors without data need one torch operation, and must not reach a kernel.
        return (self.defined if is_in_torch_dispatch_mode() else self._call)(*args)

    def _run(self, *args: Any) -> Any:
        return choose(self.name, *args).run(*args)

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., Any], once: bool = True
    ) -> None:
        """As `torch.library.CustomOpDef.register_autograd`; `once`: without second derivatives."""
        run = self._run

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.use = in_use()
            setup_context(ctx, inputs, output)

        def with_use(ctx: Any, *gy: Any) -> Any:
            with using(ctx.use):
                return backward(ctx, *gy)

        gradient: Any = once_differentiable(with_use) if once else with_use
        self.defined.register_autograd(gradient, setup_context=setup)

        class Direct(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                out = run(*args)
                setup(ctx, args, out)
                return out

            backward = staticmethod(gradient)

        self._call = Direct.apply


def operation(plain: Callable[..., Any]) -> Operation:
    """Make an operation of a plain function, as a decorator."""
    return Operation(plain)


def kernel(
    name: str,
    serves: str,
    refuses: Callable[..., str],
    backend: str = "",
    notes_refusal: bool = True,
) -> Callable[..., Any]:
    """Register a faster kernel of an operation, before its other kernels.

    Parameters
    ----------
    name : str
        Name of the kernel.
    serves : str
        The operation's name in `torch.ops.faigfast`.
    refuses, backend, notes_refusal
        As in `Kernel`.
    """

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[serves].insert(0, Kernel(name, run, refuses, backend, notes_refusal))
        return run

    return register


def choose(operation: str, *args: Any) -> Kernel:
    """Find the first kernel of the backend in use, or of all, that serves these arguments.

    With a `preference`, the kernel of the backend that it names for the operation comes first.
    """
    use = in_use()
    if use.preference is not None:
        other = use.preference.backends.get(operation, "")
        for kernel in KERNELS[operation]:
            if other and kernel.backend == other and not kernel.refuses(*args):
                noun = NOUNS.get(operation.removesuffix("_backward"), operation)
                use.refused.setdefault(
                    f"speed: {noun} by the backend {other}, the faster one on this card "
                    f"({use.preference.basis})"
                )
                return kernel
    for kernel in KERNELS[operation]:
        if kernel.backend in ("", use.backend):
            why = kernel.refuses(*args)
            if not why:
                return kernel
            if kernel.backend and kernel.notes_refusal:
                use.refused.setdefault(_refusal(operation, kernel.name, why))
    raise AssertionError(f"{operation} has no plain kernel")


def _refusal(operation: str, kernel: str, why: str) -> str:
    """Word a note for users: what happened, why, and what it costs."""
    forward = operation.removesuffix("_backward")
    noun = NOUNS.get(forward, forward.replace("_", " "))
    noun = noun if operation == forward else f"gradients of {noun}"
    return (
        f"speed: PyTorch computes some {noun} in place of faigfast's {kernel} kernel ({why}): the "
        "scores are as exact, these layers may be slower; nothing needs to be done"
    )


def plain(operation: Any) -> Callable[..., Any] | None:
    """Plain PyTorch implementation of an operation of faigfast; None for other operations."""
    if not isinstance(operation, torch._ops.OpOverload) or operation.namespace != "faigfast":
        return None
    kernels = KERNELS.get(operation._schema.name.partition("::")[2])
    return kernels[-1].run if kernels else None
