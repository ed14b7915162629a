"""A launch: a kernel with its grid and arguments, to be run here or compiled for another device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """How a matrix kernel cuts its work.

    Parameters
    ----------
    m, n, k : int
        Rows, columns and depth of one product of tiles, powers of two from 16 on.
    warps : int
        Of one program.
    stages : int
        Tiles of the depth that are under way at once.
    formed : bool
        Whether γ(α) is formed once and kept in the type of the products, or anew in every tile.
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
        By name; tensors, numbers, and constants of the compiler.
    warps, stages : int
        Options of the compiler.
    registers : int
        The most of a thread; 0: as many as the compiler thinks good.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    registers: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """What the compiler is told beside the constants."""
        # Its default for multiply-adds is about to change.
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,
            **({"maxnreg": self.registers} if self.registers else {}),
        }

    @property
    def name(self) -> str:
        """Of the kernel."""
        return str(self.kernel.__name__)

    def run(self) -> None:
        """Launch it on the device of its tensors.

        Raises
        ------
        RuntimeError
            If it could not be compiled or launched, named by kernel.
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
