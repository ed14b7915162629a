"""Peak memory of one contender, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from faigfast.bench.rivals import contenders
from faigfast.bench.workloads import workload

CHILD = "import sys; from faigfast.bench.memory import report_peak as main; main(*sys.argv[1:])"


def peak_memory(name: str, contender: str, steps: int, images: int) -> int:
    """Measure the most memory that a new process holds to compute a workload once, in bytes.

    The whole process is counted: Python, torch, networks and images as well. Processes that it
    starts, such as a compiler, are not.

    Parameters
    ----------
    name : str
        Of the workload.
    contender : str
        One of `contenders()`.
    steps, images : int
        Points, and how many of the workload's images.

    Raises
    ------
    RuntimeError
        If that process fails, or memory cannot be read on this system.
    """
    words = [name, contender, str(steps), str(images), str(torch.get_num_threads())]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"the process that measures memory failed: {last}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def own_peak() -> int:
    """Read the largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        # Before ru_maxrss, which in a child starts from the peak of its parent.
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def report_peak(name: str, contender: str, steps: str, images: str, threads: str) -> None:
    """Compute the workload once and print the peak in bytes as the last line, in JSON."""
    torch.set_num_threads(int(threads))
    contenders()[contender](workload(name).problem(int(steps), int(images)))()
    print(json.dumps({"peak": own_peak()}))
