"""Candidate tiles of the matrix kernels; the first is taken unless the user asks for tuning."""

from triton import next_power_of_2

from faigfast.kernels.launch import Tile

# Depth of a product that fills 128 bytes, one line of shared memory.
DEPTH = {"fp16": 64, "bf16": 64, "tf32": 32, "bf16x3": 32}
REGISTERS = 255  # of a thread; left to itself, the compiler spills rather than take them all


def side(size: int, most: int) -> int:
    """Smallest power of two from 16 on that holds `size`, at most `most`."""
    return int(min(max(next_power_of_2(size), 16), most))


def forward(mode: str, outputs: int, channels: int) -> list[Tile]:
    """Candidates of the forward pass: pixels × outputs, over channels."""
    n, k = side(outputs, 64), side(channels, DEPTH[mode])
    if mode == "bf16x3":
        return [Tile(128, n, k, 8, 2), Tile(64, n, k, 8, 2)]
    return [Tile(128, n, k, 8, 3), Tile(64, n, k, 4, 4)]


def input_gradient(mode: str, channels: int, outputs: int) -> list[Tile]:
    """Candidates of the input gradient: pixels × channels, over outputs."""
    if mode == "bf16x3":
        return forward(mode, channels, outputs)
    n, k = side(channels, 64), side(outputs, DEPTH[mode])
    # The first must fit the 99 KB of shared memory on consumer cards.
    return [Tile(128, n, k, 8, 3 if DEPTH[mode] == 64 else 2), Tile(64, n, k, 4, 3)]


def weight_gradient(mode: str, outputs: int, channels: int) -> list[Tile]:
    """Candidates of the weight gradient: outputs × channels, over pixels."""
    m, n, k = side(outputs, 64), side(channels, 64), DEPTH[mode]
    if mode == "bf16x3":
        return [Tile(m, side(channels, 32), k, 8, 2), Tile(m, n, k // 2, 8, 2)]
    thin = m * n < 2048
    registers = REGISTERS if thin or channels > n else 0
    warps = 4 if thin else 8
    return [Tile(m, n, k, warps, stages, registers) for stages in (3, 2)]
