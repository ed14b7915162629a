"""A launch: a kernel with its grid and arguments, to be run here or compiled for another device."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

# What the speed of a tile depends on, of the arguments of the matrix kernels.
KEY = ("C", "O", "KH", "KW", "SH", "SW", "DH", "DW", "MODE")


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
    registers : int
        Maximum of one thread; 0 leaves the number to the compiler.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3
    registers: int = 0

    @property
    def constants(self) -> dict[str, int]:
        """Constants of the kernel."""
        return {"M": self.m, "N": self.n, "K": self.k}

    def config(self) -> Any:
        """Give the tile as `triton.autotune` takes it."""
        return triton.Config(
            self.constants, self.warps, self.stages, maxnreg=self.registers or None
        )


Grid = tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel.

    Parameters
    ----------
    kernel : JITFunction
        From `triton.jit`.
    grid : tuple of int or callable
        Programs in up to three dimensions; a matrix kernel's follow from the tile's constants.
    arguments : mapping
        Tensors, numbers and compile-time constants by name, without the tile's.
    tiles : sequence of Tile
        Candidates; the first must run on every device. Empty for kernels without products.
    """

    kernel: Any
    grid: Grid | Callable[[Mapping[str, Any]], Grid]
    arguments: Mapping[str, Any]
    tiles: Sequence[Tile] = ()

    @property
    def constants(self) -> dict[str, int]:
        """Constants of the first tile."""
        return self.tiles[0].constants if self.tiles else {}

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler for the first tile."""
        # Triton announces another default for multiply-adds.
        tile = self.tiles[0] if self.tiles else Tile(0, 0, 0)
        limit = {"maxnreg": tile.registers} if tile.registers else {}
        return {
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            "enable_fp_fusion": True,
            **limit,
        }

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.__name__)

    def run(self) -> None:
        """Launch the kernel on the device of its tensors.

        Takes the first tile, or with FAIGFAST_TUNE=1 the one that `triton.autotune` measures to be
        the fastest and keeps in Triton's cache.

        Raises
        ------
        RuntimeError
            If the kernel could not be compiled or launched; the message names it.
        """
        device = next(v.device for v in self.arguments.values() if isinstance(v, Tensor))
        tunes = device.type == "cuda" and os.environ.get("FAIGFAST_TUNE") == "1"
        with _on(device):
            try:
                if tunes and len(self.tiles) > 1:
                    kernel = tuned(self.kernel, tuple(self.tiles))
                    kernel[self.grid](**self.arguments, enable_fp_fusion=True)
                else:
                    self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
            except torch.OutOfMemoryError:
                raise
            except Exception as problem:
                reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
                raise RuntimeError(
                    f"the Triton kernel {self.name} could not be launched on {device}: {reason}"
                ) from problem


@cache
def tuned(kernel: Any, tiles: tuple[Tile, ...]) -> Any:
    """Let Triton choose among tiles by replays of CUDA graphs, which leave Python's time out."""

    def by_replays(run: Callable[[], object], quantiles: Sequence[float]) -> Any:
        return triton.testing.do_bench_cudagraph(run, quantiles=quantiles)

    configs = [tile.config() for tile in tiles]
    return triton.autotune(configs, list(KEY), do_bench=by_replays, cache_results=True)(kernel)


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":  # Triton's interpreter
        yield
        return
    with torch.cuda.device(device):
        yield
