"""Memory of a call of the backend "cpu", measured in a process of its own.

Prints a line of JSON for each network name: the budget, the bytes that a chunk needs, and the
largest growth of the process in bytes.
"""

import gc
import json
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script has only its own folder on the path
from cases.networks import pair

from faigfast import attribute
from faigfast.backend.cpu.allocator import free_cached
from faigfast.bench.memory import own_peak
from faigfast.engine import chunking, integrate, memory
from faigfast.engine.memory import Chunk
from faigfast.zoo import RRDBNet, SRResNet

POINTS = 8
NETS = {  # network and image side; they need far more than the kernels' minimum of 32 MiB
    "SRResNet": (lambda: SRResNet(width=32, blocks=2, scale=2), 128, 2),
    "RRDBNet": (lambda: RRDBNet(width=32, growth=16, blocks=1, scale=4), 64, 4),
}


def grown(call):
    """Largest growth of the process in bytes."""
    gc.collect()
    free_cached()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = own_peak()
    call()
    return own_peak() - before


def measure(name):
    make, side, scale = NETS[name]
    nets, needs = pair(make, torch.float32), {}
    x, gt = torch.rand(1, 3, side, side), torch.rand(1, 3, scale * side, scale * side)
    original = integrate.fit_chunk

    def fitted(plan, *args):
        chunk = original(plan, *args)
        for kind, counts in plan.needs.items():
            needs.update(dict.fromkeys(kind[:1], max(counts.values())))
        return chunk

    integrate.fit_chunk = fitted

    def call(budget):
        options = {"rule": "midpoint", "steps": POINTS, "backend": "cpu"}
        result = attribute(*nets, (x, gt), memory=budget, **options)
        assert result.backend == "cpu"

    call(10**11)  # only the first call makes and checks the graph
    budget = needs[Chunk(POINTS, 1)]
    peak = grown(lambda: call(budget))
    integrate.fit_chunk = original
    return {"budget": budget, "peak": peak}


if __name__ == "__main__":
    torch.set_num_threads(2)
    chunking.PREFERRED_CHUNKS = dict.fromkeys(("cpu", "cuda"), Chunk(POINTS, 1))
    chunking.BYTES_PER_THREAD = {}
    memory.upper_bound = lambda *_: math.inf  # force the exact count
    for name in sys.argv[1:]:
        print(json.dumps(measure(name)))
