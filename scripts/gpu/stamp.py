"""What every line says of its origin: device, versions, commit."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .items import ROOT

NEEDED = ("torch", "triton", "numpy", "safetensors", "tqdm", "pytest")  # tqdm: by faigfast itself
DESCRIBE = (sys.executable, "-m", "scripts.gpu.stamp")
SECONDS = 90  # the first import of torch on a fresh machine is slow


class NoGpuError(Exception):
    """No NVIDIA GPU can be used; the text says why."""


def make_stamp(environment: dict[str, str], seconds: float = SECONDS) -> dict[str, Any]:
    """Ask a process of its own for device and versions, so that this one stays free of CUDA.

    Raises
    ------
    NoGpuError
        If there is no GPU, or the process fails or takes too long.
    """
    try:
        run = subprocess.run(
            DESCRIBE, capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        raise NoGpuError(f"torch did not load in {seconds:.0f} s") from None
    try:
        stamp: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        raise NoGpuError(f"torch does not load: {last}") from None
    if "why" in stamp:
        raise NoGpuError(stamp["why"])
    return stamp | {"commit": commit()}


def commit(root: Path = ROOT) -> str:
    """Short hash of the commit, with "+" where files differ from it; "unknown" without git."""
    told = os.environ.get("FAIGFAST_COMMIT")  # for a copy of the tree without its history
    if told:
        return told

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe() -> dict[str, Any]:
    """Name the device and the versions, or say in `why` what is missing."""
    versions = {"python": platform.python_version()}
    for name in NEEDED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    try:
        import torch
    except ImportError:
        return {"why": f"{sys.executable} has no torch; set PYTHON to one that has"}
    if torch.version.cuda is None:
        return {"why": f"torch {torch.__version__} of {sys.executable} is built without CUDA"}
    if not torch.cuda.is_available():
        return {"why": f"torch is built for CUDA {torch.version.cuda}, but there is no device"}
    card = torch.cuda.get_device_properties(0)
    versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    return {
        "device": card.name,
        "card": {
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "L2": card.L2_cache_size,
            "memory": card.total_memory,
        },
        "versions": versions,
    }


if __name__ == "__main__":
    print(json.dumps(describe()))
