"""Peak memory of this process."""

import sys
from pathlib import Path


def own_peak() -> int:
    """Read the largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        # Preferred to ru_maxrss, which in a child starts from the peak of its parent.
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
