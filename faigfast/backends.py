"""Which ways of computing an attribution exist here, which do not, and why."""

from dataclasses import dataclass, field

import torch

from faigfast import _extension, _extension_cuda


@dataclass(frozen=True)
class Backend:
    """One way of computing an attribution.

    Attributes
    ----------
    name : str
        What `attribute(backend=...)` takes.
    available : bool
        Whether `attribute` can compute with it here.
    reason : str
        Why it can, or why not.
    details : dict of str to str
        What was found of its parts.
    """

    name: str
    available: bool
    reason: str
    details: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.name:<10}{'yes' if self.available else 'no':<5}{self.reason}"]
        lines += [f"{'':<15}{key}: {value}" for key, value in self.details.items()]
        return "\n".join(lines)


class Backends(dict[str, Backend]):
    """Backends by name; printed as a table."""

    def __str__(self) -> str:
        return "\n".join(str(backend) for backend in self.values())

    __repr__ = __str__


def backends() -> Backends:
    """Tell which backends exist here and why the others do not.

    Returns
    -------
    dict of str to Backend
        `reference`, `torch`, `cpu`, `triton` and `cuda`.

    Raises
    ------
    ValueError
        If the environment variable FAIGFAST_ISA asks for an instruction set that is not there.

    Examples
    --------
    >>> import faigfast
    >>> faigfast.backends()["reference"].available
    True
    """
    absent = "not part of this version"
    table = (
        Backend(
            "reference",
            True,
            "the literal loop over images and points in PyTorch",
            {"torch": torch.__version__},
        ),
        Backend(
            "torch",
            True,
            "many points of the line in one pass, in PyTorch",
            {"torch": torch.__version__},
        ),
        Backend(
            "cpu",
            _extension.module is not None,
            "the same with C++ kernels, for networks in float32 on a CPU"
            if _extension.module is not None
            else "the compiled extension is missing",
            {"extension": _extension.describe()},
        ),
        Backend("triton", False, absent),
        _cuda(),
    )
    return Backends((backend.name, backend) for backend in table)


def _cuda() -> Backend:
    why = _extension_cuda.problem()
    return Backend(
        "cuda",
        not why,
        f"{why}; torch serves instead"
        if why
        else "the same with CUDA kernels around cuDNN, compiled and not yet run on a device",
        {"extension": _extension_cuda.describe()},
    )


def choose(name: str, device: torch.device | str) -> tuple[str, str]:
    """Choose the backend that computes.

    Parameters
    ----------
    name : str
        A backend's name, or "auto".
    device : torch.device or str
        Where networks and images are.

    Returns
    -------
    name : str
        A backend that is available.
    why : str
        Why "auto" chose it; empty where it was asked for.

    Raises
    ------
    ValueError
        If there is no backend of this name, or it is not available here.
    """
    if name == "auto":
        if torch.device(device).type != "cpu":
            return "torch", f"backend: torch on {device}, the fastest of this version"
        if _extension.module is None:
            return "torch", f"backend: torch, since the extension is missing: {_extension.missing}"
        return "cpu", "backend: cpu, the fastest of this version on a CPU"
    table = backends()
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"backend is {name!r}; expected one of auto, {', '.join(table)}")
    if not table[name].available:
        raise ValueError(f"backend {name!r} cannot be used on {device}: {table[name].reason}")
    if name == "cuda" and (why := _extension_cuda.problem(device)):
        raise ValueError(f"backend 'cuda' cannot be used on {device}: {why}; torch serves instead")
    if name == "cpu" and torch.device(device).type != "cpu":
        raise ValueError(f"backend 'cpu' cannot be used on {device}: its kernels run on CPUs")
    return name, ""
