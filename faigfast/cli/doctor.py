"""`faigfast doctor`: which parts are built and installed, and why others are missing."""

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import torch

from faigfast.backend.catalogue import backends
from faigfast.backend.cpu import extension as _extension
from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu import triton_support as _triton
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.zoo.pairs import shipped_pair

CORE = ("numpy", "safetensors", "tqdm")
# Distribution, the extra that installs it, and its purpose.
OPTIONAL = (
    ("jsonargparse", "cli", "the command line"),
    ("pillow", "data", "images"),
    ("scikit-image", "data", "photographs"),
    ("scikit-learn", "sklearn", "two more photographs"),
    ("matplotlib", "report", "figures"),
    ("pandas", "report", "tables"),
    ("pyarrow", "report", "tables as Parquet"),
    ("scipy", "report", "intervals over photographs"),
    ("torchmetrics", "report", "SSIM"),
    ("pytest", "test", "tests"),
    ("pytest-benchmark", "test", "benchmarks in tests"),
    ("hypothesis", "test", "tests"),
)
COMPILERS = ("c++", "g++", "clang++", "nvcc")


def run(options: Any, words: Sequence[str]) -> None:
    """Print the state of every part."""
    state = examine()
    if options.json:
        print(json.dumps(state, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(f"{title}\n{_text(part)}" for title, part in state.items()))


def examine() -> dict[str, dict[str, Any]]:
    """Collect the state of all parts, by subject."""
    return {
        "versions": {
            **describe_versions(),
            **{name: _version(name) or "missing" for name in CORE},
        },
        "extension": _extension_findings(),
        "CUDA extension": _try(_cuda_findings),
        "backends": _try(lambda: {b.name: _backend(b) for b in backends().values()}),
        "Triton": _try(_triton_findings),
        "compilers here": {name: _compiler(name) for name in COMPILERS},
        "GPU": _gpu(),
        "machine": {
            **_try(describe_machine),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        },
        "optional packages": {
            name: _version(name) or f"missing: {use}; pip install 'faigfast[{extra}]'"
            for name, extra, use in OPTIONAL
        },
        "trained pair": _try(_pair),
    }


def _extension_findings() -> dict[str, Any]:
    module, info = _extension.module, _extension.build_info
    built = {
        f"build {key}": value
        for key, value in info.items()
        if key not in ("extension", "cuda") and value is not None
    }
    if module is None:
        return {"state": f"missing: {_extension.missing}", **built}
    return {
        "state": "built",
        "instruction sets compiled": module.compiled(),
        "usable here": module.supported(),
        **_try(lambda: {"in use": module.isa()}),
        "FAIGFAST_ISA": os.environ.get("FAIGFAST_ISA", "not set: the widest is taken"),
        **built,
    }


def _triton_findings() -> dict[str, Any]:
    """Describe Triton and whether its kernels can run."""
    why = _triton.refuses()
    return {
        "version": _triton.version() or "missing",
        "kernels": f"cannot run here: {why}" if why else "can run here",
    }


def _cuda_findings() -> dict[str, Any]:
    info = _extension.build_info.get("cuda", {})
    return {
        "state": _extension_cuda.describe(),
        "usable here": _extension_cuda.problem() or "yes",
        "Hopper convolution": "compiled, not yet run on a device; FAIGFAST_HOPPER=1 takes it",
        **{f"build {k}": v for k, v in info.items() if k not in ("extension", "reason")},
    }


def _backend(backend: Any) -> str:
    return f"{'yes' if backend.available else 'no'}: {backend.reason}"


def _gpu() -> dict[str, Any]:
    if torch.cuda.is_available():
        devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        return {
            f"cuda:{n}": f"{device.name}, sm_{device.major}{device.minor}, "
            f"{device.total_memory / 2**30:.0f} GiB"
            for n, device in enumerate(devices)
        } | {"CUDA of torch": torch.version.cuda}
    if torch.version.cuda is None:
        return {"none": f"torch {torch.__version__} is built without CUDA"}
    return {"none": f"torch is built for CUDA {torch.version.cuda}, but finds no device or driver"}


def _pair() -> dict[str, Any]:
    baseline, _ = shipped_pair()
    return {"state": f"here, {sum(p.numel() for p in baseline.parameters())} parameters each"}


def _compiler(name: str) -> str:
    """Ask a compiler for its version."""
    path = shutil.which(name)
    if path is None:
        return "missing"
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    lines = [line for line in answer.stdout.splitlines() if line.strip()]
    # nvcc begins with its name and licence.
    return next((line for line in lines if "release" in line), lines[0] if lines else "no version")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _try(find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Give the state of one part, or its error, so that other parts are still examined."""
    try:
        return find()
    except Exception as error:
        return {"problem": str(error)}


def _text(part: dict[str, Any]) -> str:
    width = max(map(len, part))
    return "\n".join(
        f"  {key:<{width}}  {' '.join(value) if isinstance(value, list) else value}"
        for key, value in part.items()
    )
