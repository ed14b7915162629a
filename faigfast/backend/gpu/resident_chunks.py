"""Chunks whose values stay in a GPU's second-level cache between an operation and the next."""

import hashlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx

from faigfast.backend.gpu.timed_choices import Candidate, Choices, device_name, rounded
from faigfast.engine.losses import accumulate
from faigfast.engine.memory import Chunk
from faigfast.engine.op_rules import Moving, Points
from faigfast.engine.run import Plan, gradients, prepare, with_sums
from faigfast.integration.objective import Objective
from faigfast.io.text_table import counted
from faigfast.ops.path_values import arranged
from faigfast.ops.registry import in_use
from faigfast.version import __version__

SHARE = 0.7  # of the cache; weights and sums take the rest


def named(device: torch.device) -> str:
    """Name a device and what runs on it, since a choice holds for these alone."""
    return f"{device_name(device)}, torch {torch.__version__}, faigfast {__version__}"


# Fewer samples at once must be worth it.
CHUNKS = Choices("chunks.json", seconds=20.0, altogether=60.0, margin=1.03, name=named)


def cache_bytes(device: torch.device) -> int:
    """Size of a GPU's second-level cache; 0 where it is not told."""
    if device.type != "cuda":
        return 0
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0))


def resident(plan: Plan, x: Tensor, chunk: Chunk, cache: int) -> Chunk | None:
    """Shrink a chunk until what most operations read and write fits the cache.

    Parameters
    ----------
    plan : Plan
        What is run.
    x : Tensor
        One image [1, C, *spatial], for its type.
    chunk : Chunk
        The largest.
    cache : int
        Bytes.

    Returns
    -------
    Chunk or None
        None where the chunk fits already, or one sample does not.
    """
    own = in_use().values or x.dtype
    inside = set(plan.sample)

    def moved(node: fx.Node) -> float:
        parts = [node, *(n for n in node.all_input_nodes if n in inside)]
        return sum(map(plan.size, parts)) * own.itemsize / x.dtype.itemsize

    # Half of all operations move no more than this for a sample.
    samples = int(SHARE * cache // max(1.0, median(map(moved, plan.sample or [plan.x]))))
    if chunk.segments > 1 or samples < 1 or samples >= chunk.samples:
        return None
    points = min(chunk.points, samples)
    return replace(chunk, points=points, images=min(chunk.images, samples // points))


def faster(
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
    notes: MutableMapping[str, None],
    cache: Callable[[torch.device], int] = cache_bytes,
) -> Chunk:
    """Take the chunk, or a smaller one that stays in the cache, whichever is faster for a sample.

    Parameters
    ----------
    plan, given, objective
        As in `faigfast.engine.run`.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth [1, ...].
    chunk : Chunk
        That fits the memory.
    notes : mapping
        Is told of the smaller one.
    cache : callable
        Gives the bytes of a device's cache.
    """
    size = cache(x.device)
    small = resident(plan, x, chunk, size)
    if small is None:
        return chunk

    def run(one: Chunk) -> Callable[[], None]:
        return lambda: _once(plan, given, x, gt, objective, one)

    names = ("as many as fit the memory", "as many as stay in the cache")
    ways = [
        Candidate(name, c, run(c), work=c.samples)
        for name, c in zip(names, (chunk, small), strict=True)
    ]
    try:
        found, choice = CHUNKS.chosen(x.device, _key(plan, given, x, chunk), ways)
    except torch.OutOfMemoryError:  # the run will halve it
        return chunk
    if found == small:
        notes.setdefault(
            f"memory: {counted(small.points, 'point')} of {counted(small.images, 'image')} at "
            f"once, whose values stay in {size / 2**20:.0f} MiB of cache: {choice} for each image "
            "at a point"
        )
    return found


def _once(
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
) -> None:
    """Run a chunk forward and backward; nothing of it is kept."""
    own = with_sums(given, chunk.images)
    images, truths = (t.expand(chunk.images, *t.shape[1:]).clone() for t in (x, gt))
    prepared = prepare(plan, own, arranged(images))
    nodes = [(p + 0.5) / chunk.points for p in range(chunk.points)]
    weights = [1 / chunk.points] * chunk.points
    try:
        accumulate(plan, prepared, Points.at(nodes, images), weights, truths, objective)
    except ValueError as problem:  # of the loss; it is told of where it counts
        raise RuntimeError(str(problem)) from problem
    finally:
        gradients(own)


def _key(plan: Plan, given: Mapping[str, Any], x: Tensor, chunk: Chunk) -> str:
    """Name a network by its operations and tensors, the size class of an image, how it runs."""
    operations = [str(node.target) for node in plan.graph.nodes]
    shapes = [tuple(v.w0.shape) for v in given.values() if isinstance(v, Moving)]
    network = hashlib.sha256(repr((operations, shapes)).encode()).hexdigest()[:12]
    use = in_use()
    kind = str(use.values or x.dtype).removeprefix("torch.")
    sizes = f"pixels={rounded(x.shape[2:].numel())} samples={rounded(chunk.samples)}"
    return " ".join([f"network {network}", sizes, use.backend or "torch", kind, use.mode])
