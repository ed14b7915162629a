"""A launch: a kernel with its grid and arguments, to be run here or compiled for another device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Tile of a matrix kernel and options of its compilation.

    Parameters
    ----------
    m, n, k : int
        Rows, columns and depth of one product of tiles, powers of two from 16 on.
    warps : int
        Warps of one program.
    stages : int
        Tiles of the depth in flight at once.
    formed : bool
        Whether γ(α) is formed once in the type of the products, or in every tile again.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3
    formed: bool = True

    def __str__(self) -> str:
        return (
            f"{self.m} × {self.n} × {self.k}, {self.warps} warps, {self.stages} stages, "
            f"γ formed {'before' if self.formed else 'in the kernel'}"
        )


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel.

    Parameters
    ----------
    kernel : JITFunction
        From `triton.jit`.
    grid : tuple of int
        Programs in up to three dimensions.
    arguments : mapping
        Tensors, numbers and compile-time constants by name.
    warps, stages : int
        Options of the compiler.
    registers : int
        Maximum of one thread; 0 leaves the number to the compiler.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    registers: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler beside the constants."""
        # Triton announces another default for multiply-adds.
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,
            **({"maxnreg": self.registers} if self.registers else {}),
        }

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.__name__)

    def run(self) -> None:
        """Launch the kernel on the device of its tensors.

        Raises
        ------
        RuntimeError
            If the kernel could not be compiled or launched; the message names it.
        """
        device = next(v.device for v in self.arguments.values() if isinstance(v, Tensor))
        with _on(device):
            try:
                self.kernel[self.grid](**self.arguments, **self.options)
            except torch.OutOfMemoryError:
                raise
            except Exception as problem:
                reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
                raise RuntimeError(
                    f"the Triton kernel {self.name} could not be launched on {device}: {reason}"
                ) from problem


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":  # Triton's interpreter
        yield
        return
    with torch.cuda.device(device):
        yield
