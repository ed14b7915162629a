"""Chunks whose values stay in a GPU's second-level cache from one operation to the next."""

import hashlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx

from faigfast.backend.gpu.timed_choices import Candidate, TimedChoices, device_name, rounded
from faigfast.engine.losses import accumulate
from faigfast.engine.memory import Chunk
from faigfast.engine.op_rules import Moving, Points
from faigfast.engine.run import Plan, prepare, take_gradients, with_gradient_sums
from faigfast.integration.objective import Objective
from faigfast.io.text_table import counted
from faigfast.ops.path_values import arranged
from faigfast.ops.registry import in_use
from faigfast.version import __version__

SHARE = 0.7  # of the cache; weights and gradient sums take the rest


def device_and_versions(device: torch.device) -> str:
    """Name a device and the versions of torch and faigfast: a choice holds for these alone."""
    return f"{device_name(device)}, torch {torch.__version__}, faigfast {__version__}"


# The margin is for fewer samples at once.
CHUNK_TIMINGS = TimedChoices(
    "chunks.json", seconds=20.0, altogether=60.0, margin=1.03, name=device_and_versions
)


def cache_bytes(device: torch.device) -> int:
    """Size of a GPU's second-level cache; 0 where torch does not report it."""
    if device.type != "cuda":
        return 0
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0))


def chunk_for_cache(plan: Plan, x: Tensor, chunk: Chunk, cache: int) -> Chunk | None:
    """Shrink a chunk until the cache holds the tensors of most operations.

    Parameters
    ----------
    plan : Plan
        Plan to run.
    x : Tensor
        One image [1, C, *spatial], for its type.
    chunk : Chunk
        Largest chunk.
    cache : int
        Bytes.

    Returns
    -------
    Chunk or None
        None where the chunk fits already, or one sample does not.
    """
    dtype = in_use().values or x.dtype
    inside = set(plan.sample)

    def moved(node: fx.Node) -> float:
        parts = [node, *(n for n in node.all_input_nodes if n in inside)]
        return sum(map(plan.size, parts)) * dtype.itemsize / x.dtype.itemsize

    # Half of all operations move at most the median for one sample.
    samples = int(SHARE * cache // max(1.0, median(map(moved, plan.sample or [plan.x]))))
    if chunk.segments > 1 or samples < 1 or samples >= chunk.samples:
        return None
    points = min(chunk.points, samples)
    return replace(chunk, points=points, images=min(chunk.images, samples // points))


def faster_chunk(
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
    notes: MutableMapping[str, None],
    cache: Callable[[torch.device], int] = cache_bytes,
) -> Chunk:
    """Choose between a chunk and a smaller one that stays in the cache, by the time of a sample.

    Parameters
    ----------
    plan, given, objective
        As in `faigfast.engine.run`.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth [1, ...].
    chunk : Chunk
        Chunk that fits the memory.
    notes : mapping
        Gets a note if the smaller one is chosen.
    cache : callable
        Gives the bytes of a device's cache.
    """
    size = cache(x.device)
    small = chunk_for_cache(plan, x, chunk, size)
    if small is None:
        return chunk

    def run(candidate: Chunk) -> Callable[[], None]:
        return lambda: _once(plan, given, x, gt, objective, candidate)

    names = ("as many as fit the memory", "as many as stay in the cache")
    candidates = [
        Candidate(name, c, run(c), work=c.samples)
        for name, c in zip(names, (chunk, small), strict=True)
    ]
    try:
        chosen, choice = CHUNK_TIMINGS.chosen(x.device, _key(plan, given, x, chunk), candidates)
    except torch.OutOfMemoryError:  # the run will halve it
        return chunk
    if chosen == small:
        notes.setdefault(
            f"memory: {counted(small.points, 'point')} of {counted(small.images, 'image')} at "
            f"once, whose values stay in {size / 2**20:.0f} MiB of cache: {choice} for each image "
            "at a point"
        )
    return chosen


def _once(
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
) -> None:
    """Run a chunk forward and backward, and drop the gradients."""
    tensors = with_gradient_sums(given, chunk.images)
    images, truths = (t.expand(chunk.images, *t.shape[1:]).clone() for t in (x, gt))
    prepared = prepare(plan, tensors, arranged(images))
    nodes = [(p + 0.5) / chunk.points for p in range(chunk.points)]
    weights = [1 / chunk.points] * chunk.points
    try:
        accumulate(plan, prepared, Points.at(nodes, images), weights, truths, objective)
    except ValueError as problem:  # of the loss; the run for scores raises it
        raise RuntimeError(str(problem)) from problem
    finally:
        take_gradients(tensors)


def _key(plan: Plan, given: Mapping[str, Any], x: Tensor, chunk: Chunk) -> str:
    """Key of a choice: network by operations and tensors, size class of the image, backend."""
    operations = [str(node.target) for node in plan.graph.nodes]
    shapes = [tuple(v.w0.shape) for v in given.values() if isinstance(v, Moving)]
    network = hashlib.sha256(repr((operations, shapes)).encode()).hexdigest()[:12]
    use = in_use()
    kind = str(use.values or x.dtype).removeprefix("torch.")
    sizes = f"pixels={rounded(x.shape[2:].numel())} samples={rounded(chunk.samples)}"
    return " ".join([f"network {network}", sizes, use.backend or "torch", kind, use.mode])
