"""The table that chooses which kernel runs an operation, and remembers why the others do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


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
    """

    name: str
    run: Callable[..., Any]
    refuses: Callable[..., str]


KERNELS: dict[str, list[Kernel]] = {}


def operation(plain: Callable[..., Any]) -> torch.library.CustomOpDef:
    """Make a torch operation of a plain PyTorch function, whose last kernel it is.

    Its name in `torch.ops.faigfast` is the function's.
    """
    name = plain.__name__
    KERNELS[name] = [Kernel("plain", plain, lambda *_: "")]

    def run(*args: Any) -> Any:
        return choose(name, *args).run(*args)

    schema = torch.library.infer_schema(plain, mutates_args=())
    defined = torch.library.custom_op(f"faigfast::{name}", run, mutates_args=(), schema=schema)
    defined.__doc__ = plain.__doc__
    return defined


def kernel(name: str, serves: str, refuses: Callable[..., str]) -> Callable[..., Any]:
    """Register a faster kernel of an operation, before those that are there.

    Parameters
    ----------
    name : str
        Of the kernel.
    serves : str
        The operation's name in `torch.ops.faigfast`.
    refuses : callable
        As in `Kernel`.
    """

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[serves].insert(0, Kernel(name, run, refuses))
        return run

    return register


def choose(operation: str, *args: Any) -> Kernel:
    """First kernel of an operation that serves these arguments."""
    return next(kernel for kernel in KERNELS[operation] if not kernel.refuses(*args))


def explain(operation: str, *args: Any) -> dict[str, str]:
    """Why each kernel of an operation does not serve these arguments; "" where it does."""
    return {kernel.name: kernel.refuses(*args) for kernel in KERNELS[operation]}


def plain(operation: Any) -> Callable[..., Any] | None:
    """Plain PyTorch implementation of an operation of faigfast, None of others."""
    if not isinstance(operation, torch._ops.OpOverload) or operation.namespace != "faigfast":
        return None
    kernels = KERNELS.get(operation._schema.name.partition("::")[2])
    return kernels[-1].run if kernels else None
