"""The backends: which are available here, and why the others are not."""

from dataclasses import dataclass, field

import torch

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu import triton_support as _triton
from faigfast.backend.precision import MATRIX

SIXTEEN_BITS = ("fp16", "bf16")


@dataclass(frozen=True)
class Backend:
    """One way of computing an attribution.

    Attributes
    ----------
    name : str
        Argument of `attribute(backend=...)`.
    available : bool
        Whether `attribute` can compute with it here.
    reason : str
        Why it is available, or why not.
    details : dict of str to str
        State of its parts, such as versions.
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


NAMES = ("reference", "torch", "cpu", "triton", "cuda")
MISSING = "the compiled extension is missing"
ONE_PASS = "many points of the line in one pass"


def backends() -> Backends:
    """List which backends exist here and why the others do not.

    Returns
    -------
    dict of str to Backend
        `reference`, `torch`, `cpu`, `triton` and `cuda`.

    Raises
    ------
    ValueError
        If the environment variable FAIGFAST_ISA names an instruction set that is absent.

    Examples
    --------
    >>> import faigfast
    >>> faigfast.backends()["reference"].available
    True
    """
    all_backends = (
        Backend(
            "reference",
            True,
            "the literal loop over images and points in PyTorch",
            {"torch": torch.__version__},
        ),
        Backend(
            "torch",
            True,
            "PyTorch alone: on a CPU one image at one point of the line at a time in each of "
            "several threads, on a GPU many in one pass",
            {"torch": torch.__version__},
        ),
        Backend(
            "cpu",
            _extension.module is not None,
            f"{ONE_PASS} with C++ kernels, for networks in float32 on a CPU"
            if _extension.module is not None
            else MISSING,
            {"extension": _extension.describe()},
        ),
        _triton_backend(),
        _cuda_backend(),
    )
    return Backends((backend.name, backend) for backend in all_backends)


def _triton_backend() -> Backend:
    why = _triton.refuses()
    reason = f"{ONE_PASS} with Triton kernels, for networks on a GPU in 32 or 16 bits"
    if _triton.interpreted():
        reason = f"{ONE_PASS} with Triton kernels in Triton's interpreter, slow and for tests"
    return Backend("triton", not why, why or reason, {"triton": _triton.version() or "missing"})


def _cuda_backend() -> Backend:
    why = _triton.refuses()
    return Backend(
        "cuda",
        not why,
        why or f"{ONE_PASS} with cuDNN's convolutions and Triton kernels around them",
        {"extension": _extension_cuda.describe()},
    )


def choose(
    name: str,
    device: torch.device | str,
    precision: str = "auto",
) -> tuple[str, str]:
    """Choose the backend that computes.

    Parameters
    ----------
    name : str
        A backend's name, or "auto".
    device : torch.device or str
        Device of networks and images.
    precision : str
        Requested precision; only Triton has tf32 and bf16x3, and 16 bits are faster there.

    Returns
    -------
    name : str
        A backend that is available.
    why : str
        Why "auto" chose it; empty if the caller named it.

    Raises
    ------
    ValueError
        If there is no backend of this name, or it is not available here.
    """
    if name == "auto":
        if precision in MATRIX or (
            precision in SIXTEEN_BITS and torch.device(device).type == "cuda"
        ):
            why = _triton.refuses(device)
            if not why:
                return "triton", f"backend: triton on {device}, for precision {precision}"
            if precision in MATRIX:
                raise ValueError(
                    f"precision is {precision!r}, which only the backend triton has: {why}"
                )
            return "torch", f"backend: torch on {device}, since triton cannot serve: {why}"
        if torch.device(device).type != "cpu":
            return "torch", f"backend: torch on {device}, which multiplies float32 fastest there"
        if _extension.module is None:
            return "torch", f"backend: torch, since the extension is missing: {_extension.missing}"
        if precision == "bf16" and not _extension.module.amx():
            return "torch", "backend: torch, since the kernels of cpu need AMX to be fast in bf16"
        return "cpu", "backend: cpu, the fastest here"
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}; expected one of auto, {', '.join(NAMES)}")
    # Ask no other backend: loading Triton takes a tenth of a second.
    why = _triton.refuses(device) if name in ("triton", "cuda") else ""
    if name == "cpu" and _extension.module is None:
        why = MISSING
    if why:
        raise ValueError(
            f"backend {name!r} cannot be used on {device}: {why}; 'auto' takes "
            f"{choose('auto', device)[0]!r} here"
        )
    if name == "cpu" and torch.device(device).type != "cpu":
        raise ValueError(f"backend 'cpu' cannot be used on {device}: its kernels run on CPUs")
    return name, ""
