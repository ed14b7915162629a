"""Chunking: how many points and images a backend runs together where memory allows."""

from dataclasses import replace
from statistics import median

import torch

from faigfast.engine.memory import Chunk
from faigfast.engine.run import Plan
from faigfast.engine.threads import MOST

# On a CPU one sample fills the cores and stays in their caches; four at once took a tenth longer.
# Kernels of our own take points together, which shares what a layer costs in Python.
WANTED = {"cpu": Chunk(points=1, images=1), "cuda": Chunk(points=8, images=8)}
FEWEST_POINTS, MOST_POINTS = 4, 8  # of a chunk; twice as many were hardly faster
# Bytes a thread that half of all operations give at most, by the backend whose kernels run: second
# caches hold them for the next operation. Four times as many where these are few points.
TOGETHER = {"cpu": 5 << 18}
SHARING = 4  # images of such a chunk at most, where as many points fit beside them
LARGE = 1 << 22  # bytes of a sample's values from where chunks run at the same time


def wanted(
    plan: Plan, device: torch.device, backend: str, images: int, may_run_at_once: bool
) -> Chunk:
    """Choose the chunk to run where memory allows.

    Parameters
    ----------
    plan : Plan
        What is run.
    device : torch.device
        Where.
    backend : str
        Whose kernels run; "": plain PyTorch.
    images : int
        How many there are.
    may_run_at_once : bool
        Whether several chunks may run at the same time, each in a thread.
    """
    chunk = WANTED.get(device.type, WANTED["cuda"])
    if backend == "triton":  # its interpreter too, which runs on a CPU
        chunk = WANTED["cuda"]
    if backend in TOGETHER and not plan.side_by_side:
        sizes = [size for size in map(plan.size, plan.sample) if size]
        together = TOGETHER[backend] * torch.get_num_threads() / median(sizes or [1])
        samples = int(max(together, min(FEWEST_POINTS, 4 * together)))
        sharing = max(1, min(SHARING, images, samples // SHARING))
        points = max(1, min(samples // sharing, MOST_POINTS))
        chunk = Chunk(points, images=sharing)
    chunk = replace(chunk, images=min(chunk.images, images))
    # Kernels of our own fill all cores with many points of one layer.
    idle = device.type == "cpu" and plan.runs_alone(backend)
    if idle and may_run_at_once and plan.bytes_of_sample >= LARGE:
        chunk = replace(chunk, at_once=min(torch.get_num_threads(), MOST))
    return chunk
