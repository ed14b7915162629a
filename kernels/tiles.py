"""Tiles that are worth trying for a matrix kernel; the first is taken where none is timed."""

from triton import next_power_of_2

from faigfast.kernels.launch import Tile

# Depth of a product that fills one line of shared memory, 128 bytes.
DEPTH = {"fp16": 64, "bf16": 64, "tf32": 32, "bf16x3": 32, "ieee": 16}


def side(size: int, most: int) -> int:
    """Smallest tile that holds so much, from 16 to `most`."""
    return min(max(next_power_of_2(size), 16), most)


def over_pixels(mode: str, columns: int, depth: int) -> list[Tile]:
    """Candidates of forward and input gradient: pixels × `columns`, over `depth` channels."""
    k = side(depth, DEPTH[mode])
    if mode == "ieee":  # no matrix instructions: what threads hold in registers
        n = side(columns, 32)
        return [Tile(64, n, k, 4, 2), Tile(128, n, k, 8, 2), Tile(32, n, k, 2, 2)]
    n = side(columns, 64 if mode == "bf16x3" else 128)
    found = [
        Tile(128, n, k, 4, 3),
        Tile(128, n, k, 8, 3),
        Tile(64, n, k, 4, 4),
        Tile(128, n, max(16, k // 2), 4, 4),
        Tile(128, n, k, 4, 3, formed=False),
    ]
    if mode != "bf16x3":
        found.insert(2, Tile(256, min(n, 64), k, 8, 3))
    return found


def over_weights(mode: str, outputs: int, channels: int) -> list[Tile]:
    """Candidates of the weight gradient: `outputs` × `channels`, over pixels."""
    k = DEPTH[mode]
    if mode == "ieee":
        return [Tile(*(side(size, 32) for size in (outputs, channels)), k, 4, 2)]
    m, n = side(outputs, 64), side(channels, 64)
    return [
        Tile(m, n, k, 4, 3),
        Tile(m, n, 2 * k if mode in ("fp16", "bf16") else k, 4, 2),
        Tile(m, n, k, 8, 3),
        Tile(m, n, max(16, k // 2), 4, 4),
    ]
