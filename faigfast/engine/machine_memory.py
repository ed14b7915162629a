"""Memory of the machine, of the control groups of this process, and of a GPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch


def memory_of(device: torch.device) -> tuple[int, int]:
    """Total and available bytes of a device; torch's unused cache of a GPU is available."""
    if device.type != "cuda":
        return machine_memory()
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return total, free + unused


def machine_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Total and available bytes: the least of the machine and of all control groups around.

    Parameters
    ----------
    root : pathlib.Path
        Folder that holds `proc` and `sys`.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = _numbers(root / "proc/meminfo").get("MemAvailable:", total >> 10) << 10
    for limit, used in _control_groups(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of the process's control group and of every group above it.

    Pages of files that the kernel can drop do not count as used. The path of the group is the
    process's own: schedulers such as SLURM limit a group without a namespace for it.
    """
    places = {  # version 2, and version 1
        "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        "memory": (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    groups = root / "proc/self/cgroup"
    lines = groups.read_text().splitlines() if groups.is_file() else []
    paths = {name: "/" for name in places}  # a container may show its own group as the first
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in places:
                paths[name] = path
    for name, path in paths.items():
        mount, limit_file, use_file, dropped = places[name]
        group = Path(path.strip("/"))
        for folder in (root / mount / part for part in (group, *group.parents)):
            limit = _number(folder / limit_file)
            if limit is not None:
                files = _numbers(folder / "memory.stat").get(dropped, 0)
                yield limit, max(0, (_number(folder / use_file) or 0) - files)


def _number(file: Path) -> int | None:
    """Read a file of one number; None for others, such as "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _numbers(file: Path) -> dict[str, int]:
    """Read lines that begin with a name and a number."""
    try:
        words = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
