"""Hardware and versions behind measured figures."""

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils import collect_env

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.gpu import extension as _extension_cuda
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


def describe_gpu(device: torch.device | str) -> dict[str, str]:
    """Name an NVIDIA GPU, its driver and the compilers for it; empty for other devices."""
    if torch.device(device).type != "cuda":
        return {}
    gpu = torch.cuda.get_device_properties(device)
    driver = collect_env.get_nvidia_driver_version(collect_env.run) or "unknown"
    triton = find_spec("triton") and version("triton")
    return {
        "gpu": f"{gpu.name}, sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} "
        f"multiprocessors, {gpu.total_memory / 2**30:.0f} GiB; driver {driver}, CUDA "
        f"{torch.version.cuda} of torch, triton {triton or 'missing'}, CUDA extension "
        f"{_extension_cuda.describe()}"
    }


def describe_versions() -> dict[str, str]:
    """Name the versions of Python, torch and faigfast."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "faigfast": __version__,
    }
