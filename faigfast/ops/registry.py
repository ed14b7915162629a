"""The table that chooses which kernel runs an operation, and remembers why the others do not."""

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
        Of the kernel.
    run : callable
        Takes the operation's arguments.
    refuses : callable
        Takes them too; says why it does not serve them, "" where it does.
    backend : str
        The backend that it belongs to; "" where it serves all.
    told : bool
        Whether what it refuses is told of; not where its backend has another kernel as well.
    """

    name: str
    run: Callable[..., Any]
    refuses: Callable[..., str]
    backend: str = ""
    told: bool = True


KERNELS: dict[str, list[Kernel]] = {}


@dataclass(frozen=True)
class Use:
    """Whose kernels may run, and what they refused.

    Parameters
    ----------
    backend : str
        Its kernels may run beside those that serve all; "" none.
    refused : dict of str to None
        Is told of what a kernel of the backend did not serve, and why.
    mode : str
        How kernels multiply float32: "ieee", "tf32", or "bf16x3" by three products of bfloat16.
    values : torch.dtype, optional
        Type of activations, where the tensors on the line are wider.
    scale : GradientScale, optional
        Keeps gradients in the range of `values`.
    layers : LayerChoice, optional
        Takes the fastest kernel of a layer in place of the backend's own.
    kept : dict
        What kernels made of weights, for their next run in the same call.
    """

    backend: str = ""
    refused: dict[str, None] = field(default_factory=dict)
    mode: str = "ieee"
    values: torch.dtype | None = None
    scale: Any = None
    layers: Any = None
    kept: dict[Any, Any] = field(default_factory=dict)


_use: ContextVar[Use | None] = ContextVar("_use", default=None)


def in_use() -> Use:
    """Give what `using` set here."""
    return _use.get() or Use()


def looked_on() -> bool:
    """Whether somebody has to see operations as such: a mode, a transform, a compiler."""
    return (
        is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )


@contextmanager
def using(use: Use) -> Iterator[None]:
    """Let operations, and their gradients later, run with a backend's kernels."""
    token = _use.set(use)
    try:
        yield
    finally:
        _use.reset(token)


class Operation:
    """A torch operation of a plain PyTorch function, whose last kernel it is.

    Its name in `torch.ops.faigfast` is the function's. Called through this object it skips torch's
    dispatcher, which would cost a fifth of a millisecond each time, unless a mode looks on.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        update_wrapper(self, plain)
        self.name = plain.__name__
        KERNELS[self.name] = [Kernel("plain", plain, lambda *_: "")]
        schema = torch.library.infer_schema(plain, mutates_args=())
        self.defined = torch.library.custom_op(
            f"faigfast::{self.name}", self._run, mutates_args=(), schema=schema
        )
        # Plain PyTorch runs on tensors without data too, and gives their layout.
        self.defined.register_fake(plain)
        self._call: Callable[..., Any] = self._run

    def __call__(self, *args: Any) -> Any:
        """Compute the operation; its gradient is known where `register_autograd` was called."""
        # Tracing and tensors without data must see one operation, and no kernel must see them.
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
    name: str, serves: str, refuses: Callable[..., str], backend: str = "", told: bool = True
) -> Callable[..., Any]:
    """Register a faster kernel of an operation, before those that are there.

    Parameters
    ----------
    name : str
        Of the kernel.
    serves : str
        The operation's name in `torch.ops.faigfast`.
    refuses, backend, told
        As in `Kernel`.
    """

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[serves].insert(0, Kernel(name, run, refuses, backend, told))
        return run

    return register


def choose(operation: str, *args: Any) -> Kernel:
    """First kernel of an operation that serves these arguments, of all or the backend in use.

    Where layers are chosen by what was measured, the fastest of several backends'.
    """
    use = in_use()
    for kernel in KERNELS[operation]:
        if kernel.backend in ("", use.backend):
            why = kernel.refuses(*args)
            if not why:
                layers = use.layers
                return kernel if layers is None else layers.kernel(operation, kernel, args)
            if kernel.backend and kernel.told:
                use.refused.setdefault(f"{operation} without the {kernel.name} kernel: {why}")
    raise AssertionError(f"{operation} has no plain kernel")


def plain(operation: Any) -> Callable[..., Any] | None:
    """Plain PyTorch implementation of an operation of faigfast, None of others."""
    if not isinstance(operation, torch._ops.OpOverload) or operation.namespace != "faigfast":
        return None
    kernels = KERNELS.get(operation._schema.name.partition("::")[2])
    return kernels[-1].run if kernels else None
