"""Where and with what figures were made."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from faigfast import _extension
from faigfast.version import __version__


def describe_machine() -> dict[str, Any]:
    """Name the processor, and the threads and instructions that torch and faigfast use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(models, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "extension": _extension.describe(),
        "system": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """Name the versions of Python, torch and faigfast."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "faigfast": __version__,
    }
