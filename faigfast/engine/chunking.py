"""Chunking: how many points and images a backend runs together where memory allows."""

from dataclasses import replace
from statistics import median

import torch

from faigfast.engine.memory import Chunk
from faigfast.engine.run import Plan
from faigfast.engine.threads import MOST_WORKERS
from faigfast.integration.quadrature import MOST_IN_PHASES

# On a CPU one sample fills the cores and stays in their caches; four at once took a tenth longer.
# Our own kernels take points together, which then share the cost of a layer in Python.
PREFERRED_CHUNKS = {"cpu": Chunk(points=1, images=1), "cuda": Chunk(points=8, images=8)}
FEWEST_POINTS, MOST_POINTS = 4, 8  # of a chunk; twice as many were hardly faster
# Bytes a thread of the median result of an operation, by backend: the second-level caches hold
# them for the next operation. Four times as many where these are few points.
BYTES_PER_THREAD = {"cpu": 5 << 18}
MOST_IMAGES = 4  # of such a chunk, where as many points fit too
MOST_AVERAGED = MOST_IN_PHASES  # points together where each reads values of its neighbours
LARGE_SAMPLE = 1 << 22  # bytes of a sample's values; from here on chunks run at the same time


def preferred_chunk(
    plan: Plan, device: torch.device, backend: str, images: int, may_run_at_once: bool
) -> Chunk:
    """Choose the chunk to run if the memory suffices.

    Parameters
    ----------
    plan : Plan
        Plan to run.
    device : torch.device
        Device of the run.
    backend : str
        Backend whose kernels run; "": plain PyTorch.
    images : int
        Number of images in the call.
    may_run_at_once : bool
        Whether several chunks may run at the same time, each in a thread.
    """
    chunk = PREFERRED_CHUNKS.get(device.type, PREFERRED_CHUNKS["cuda"])
    if backend == "triton":  # its interpreter too, which runs on a CPU
        chunk = PREFERRED_CHUNKS["cuda"]
    if backend in BYTES_PER_THREAD and not plan.side_by_side:
        sizes = [size for size in map(plan.size, plan.sample) if size]
        fitting = BYTES_PER_THREAD[backend] * torch.get_num_threads() / median(sizes or [1])
        samples = int(max(fitting, min(FEWEST_POINTS, 4 * fitting)))
        chunk_images = max(1, min(MOST_IMAGES, images, samples // MOST_IMAGES))
        points = max(1, min(samples // chunk_images, MOST_POINTS))
        chunk = Chunk(points, images=chunk_images)
    chunk = replace(chunk, images=min(chunk.images, images))
    # Our own kernels fill all cores with many points of one layer.
    leaves_cores_idle = device.type == "cpu" and plan.runs_alone(backend)
    if leaves_cores_idle and may_run_at_once and plan.bytes_of_sample >= LARGE_SAMPLE:
        chunk = replace(chunk, at_once=min(torch.get_num_threads(), MOST_WORKERS))
    return chunk


def averaging(chunk: Chunk, points: int) -> Chunk:
    """Give the chunk for a step of some points whose slopes of kinks are averaged."""
    together = max(chunk.points, min(points, MOST_AVERAGED))
    images = max(1, chunk.samples // together)
    return replace(chunk, points=together, images=images, at_once=1, averages=True)
