"""Whether the Triton kernels can run on a device, or the reason why not; imports lazily."""

import os
import re
from functools import cache
from importlib import import_module, metadata

import torch

OLDEST = (3, 5)  # oldest Triton version; the kernels were compiled with it
LEAST = (8, 0)  # lowest compute capability: Ampere's matrix instructions


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels on CPU tensors: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def version() -> str:
    """Version of Triton; "" where there is none."""
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return ""


@cache
def missing() -> str:
    """Say why there is no usable Triton; "" where there is."""
    installed = version()
    if not installed:
        return "Triton is not installed (pip install triton)"
    if tuple(map(int, re.findall(r"\d+", installed)[:2])) < OLDEST:
        return f"Triton is {installed}; the kernels need {'.'.join(map(str, OLDEST))} or later"
    try:
        import_module("triton")
    except Exception as error:  # a broken installation fails in many ways
        return f"Triton {installed} cannot be loaded: {(str(error).splitlines() or [''])[0]}"
    return ""


@cache
def no_gpu() -> str:
    """Say why torch has no NVIDIA GPU; "" where it has one."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # no device, no driver, or one that is too old
        return f"torch finds no GPU: {(str(error).splitlines() or [''])[0].rstrip('.')}"
    return ""


def refuses(device: torch.device | str | None = None) -> str:
    """Say why the kernels cannot run on a device, or on any; "" where they can."""
    why = missing()
    if why:
        return why
    if interpreted():
        return ""
    why = no_gpu()
    if why:
        return why
    if device is None:
        counted = [refuses(f"cuda:{n}") for n in range(torch.cuda.device_count())]
        return "" if "" in counted else "; ".join(counted)
    device = torch.device(device)
    if device.type != "cuda":
        return f"its kernels run on GPUs, and the networks are on {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST:
        name, least = torch.cuda.get_device_name(device), "{}{}".format(*LEAST)
        own = "{}{}".format(*capability)
        return f"{device} is a {name} (sm_{own}); the kernels need sm_{least} or later"
    return ""
