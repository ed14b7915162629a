"""The CUDA extension `faigfast._C_cuda`, or the reason why it is absent or serves no card."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from faigfast.backend.cpu import extension as _extension

CAPABILITY = (9, 0)  # of Hopper; the code runs on no other


def _load() -> tuple[ModuleType | None, str]:
    built = _extension.build_info.get("cuda", {})
    try:
        return import_module("faigfast._C_cuda"), ""
    except ModuleNotFoundError:
        if built.get("extension"):
            return None, "it was built for another Python"
        return None, built.get("reason") or "this copy of the package was built without it"
    except ImportError as error:
        return None, f"it cannot be loaded: {error}"


module, missing = _load()


def problem(device: torch.device | str | None = None) -> str:
    """Say in one sentence why the CUDA kernels cannot run; empty where they can.

    Parameters
    ----------
    device : torch.device or str, optional
        Device of the tensors; None: any card of this machine.
    """
    if module is None:
        return f"the CUDA extension is missing: {missing}"
    if device is not None and torch.device(device).type != "cuda":
        return f"tensors are on {device}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but finds no device or driver"
    old = _driver_problem()
    if old or device is not None:
        number = None if device is None else torch.device(device).index
        return old or _card_problem(torch.cuda.current_device() if number is None else number)
    problems = [_card_problem(number) for number in range(torch.cuda.device_count())]
    return "" if "" in problems else problems[0]


def _driver_problem() -> str:
    assert module is not None
    driver, built = module.driver_version(), module.runtime_version()
    if driver // 1000 >= built // 1000:  # within a major version, a newer build runs too
        return ""
    return (
        f"the driver serves CUDA {_version(driver)}, but the kernels were built with CUDA "
        f"{_version(built)}; update the driver, or build with an older nvcc"
    )


@cache
def _card_problem(number: int) -> str:
    capability = torch.cuda.get_device_capability(number)
    if capability == CAPABILITY:
        return ""
    name = torch.cuda.get_device_name(number)
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}; expected "
        f"{CAPABILITY[0]}.{CAPABILITY[1]} (Hopper)"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def describe() -> str:
    """Say in one line what the CUDA extension was built with, or why there is none."""
    if module is None:
        return f"missing: {missing}"
    return f"built with CUDA {_version(module.runtime_version())} for sm_90a"
