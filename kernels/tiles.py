"""Candidate tiles of the matrix kernels; without timing the first is taken."""

from triton import next_power_of_2

from faigfast.kernels.launch import Tile

# Depth of a product that fills 128 bytes, one line of shared memory.
DEPTH = {"fp16": 64, "bf16": 64, "tf32": 32, "bf16x3": 32, "ieee": 16}


def side(size: int, most: int) -> int:
    """Smallest power of two from 16 on that holds `size`, at most `most`."""
    return int(min(max(next_power_of_2(size), 16), most))


def forward(mode: str, outputs: int, channels: int, shuffle: int = 1) -> list[Tile]:
    """Candidates of the forward pass: pixels × outputs, over channels."""
    k = side(channels, DEPTH[mode])
    if mode == "ieee":  # no matrix instructions: threads hold the tile in registers
        n = side(outputs, 32)
        return [Tile(64, n, k, 4, 2), Tile(32, n, k, 2, 2)]
    n = side(outputs, 64)
    if mode == "bf16x3":
        return [Tile(128, n, k, 8, 2), Tile(64, n, k, 8, 2)]
    candidates = [
        Tile(128, n, k, 8, 3),
        Tile(64, n, k, 4, 4),
        Tile(128, n, k, 8, 2, formed=False),
    ]
    if shuffle == 1 and DEPTH[mode] == 64:  # otherwise there are too few registers
        candidates += [Tile(256, n, k, 8, 2), Tile(128, n, max(16, k // 2), 4, 4)]
    return candidates


def input_gradient(mode: str, channels: int, outputs: int, shuffle: int = 1) -> list[Tile]:
    """Candidates of the input gradient: pixels × channels, over outputs, from two tensors."""
    k = side(outputs, DEPTH[mode])
    if mode in ("ieee", "bf16x3"):
        return forward(mode, channels, outputs, shuffle)
    n = side(channels, 64)
    return [
        # The first must fit the 99 KB of shared memory on consumer cards.
        Tile(128, n, k, 8, 3 if DEPTH[mode] == 64 else 2),
        Tile(64, n, k, 4, 3),
        Tile(128, n, max(16, k // 2), 4, 3),
        Tile(128, n, k, 8, 2, formed=False),
    ]


def weight_gradient(mode: str, outputs: int, channels: int) -> list[Tile]:
    """Candidates of the weight gradient: outputs × channels, over pixels."""
    k = DEPTH[mode]
    if mode == "ieee":
        return [Tile(side(outputs, 32), side(channels, 32), k, 4, 2)]
    m, n = side(outputs, 64), side(channels, 64)
    if mode == "bf16x3":
        return [Tile(m, side(channels, 32), k, 8, 2), Tile(m, n, k // 2, 8, 2)]
    few = 4 if m * n < 2048 else 8  # warps
    return [Tile(m, n, k, few, 3), Tile(m, n, k, few, 2), Tile(m, n, max(16, k // 2), 4, 4)]
