"""Choice of the fastest backend's kernel for a convolution, measured on the device by shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from faigfast.backend.gpu.timed_choices import Candidate, Choice, TimedChoices, device_name, rounded
from faigfast.ops.registry import KERNELS, Kernel, in_use
from faigfast.version import __version__

# Operation → positions of input, weight and stride, the first argument of the geometry.
TIMED_OPERATIONS = {"conv": (0, 1, 12), "conv_backward": (1, 3, 11)}
RIVAL_BACKENDS = ("triton", "cuda", "")  # backends of the candidates; "" is PyTorch's cuDNN
DISPLAY_NAMES = {"plain": "PyTorch (cuDNN, channels-last)", "cuda": "cuda (cuDNN, channels-last)"}
# Largest relative L2 difference of a kernel's results from PyTorch's in the same type.
MOST_DIFFERENCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
MOST_DIFFERENCE_WIDE = 1e-4


def device_and_versions(device: torch.device) -> str:
    """Name a device and the versions of torch and faigfast: a choice holds for these alone."""
    return f"{device_name(device)}, torch {torch.__version__}, faigfast {__version__}"


# The seconds include compilation; the margin is for another backend's kernel.
LAYER_TIMINGS = TimedChoices(
    "layers.json", seconds=20.0, altogether=120.0, margin=1.05, name=device_and_versions
)


class LayerChoice:
    """Chooses kernels in one call of `attribute`.

    Parameters
    ----------
    rivals : sequence of str
        Backends of the candidates beside the backend in use.
    timings : TimedChoices
        Choices of this and earlier processes.
    """

    def __init__(
        self, rivals: Sequence[str] = RIVAL_BACKENDS, timings: TimedChoices = LAYER_TIMINGS
    ) -> None:
        self.rivals, self.timings = rivals, timings
        self.known: dict[Any, Kernel] = {}
        self.served: dict[tuple[str, str], dict[str, None]] = {}  # layers by operation and kernel
        self.untimed: dict[str, None] = {}
        self.left_out: dict[str, None] = {}

    def kernel(self, operation: str, own: Kernel, args: Sequence[Any]) -> Kernel:
        """Take the fastest kernel that serves these arguments.

        Parameters
        ----------
        operation : str
            Name in the table; an operation outside `TIMED_OPERATIONS` keeps its kernel.
        own : Kernel
            Kernel of the backend in use; it stays unless another is clearly faster.
        args : sequence
            Arguments of the operation.
        """
        if operation not in TIMED_OPERATIONS or own.name == "hopper":  # FAIGFAST_HOPPER asks for it
            return own
        memo = operation, own.name, *map(_signature, args)
        if memo not in self.known:
            self.known[memo] = self._measured(operation, own, args)
        return self.known[memo]

    def _measured(self, operation: str, own: Kernel, args: Sequence[Any]) -> Kernel:
        x = args[TIMED_OPERATIONS[operation][0]]
        plain = KERNELS[operation][-1]
        kernels = [own]
        # Float32 products by matrix instructions have no other kernel of that precision.
        if not (in_use().mode != "ieee" and x.dtype == torch.float32):
            kernels += [
                other
                for other in (plain, *KERNELS[operation])
                if other.backend in self.rivals and not other.refuses(*args)
            ]
        kernels = list({kernel.name: kernel for kernel in kernels}.values())
        reference = _PlainReference(plain, args)
        candidates = [Candidate(k.name, k, reference.compared(k)) for k in kernels]
        # The key names the candidates, since the choice holds for them alone.
        key = f"{layer_key(operation, args)} of {' '.join(kernel.name for kernel in kernels)}"
        with torch.no_grad():
            fastest, choice = self.timings.chosen(x.device, key, candidates)
        self._note(operation, args, choice)
        return fastest

    def _note(self, operation: str, args: Sequence[Any], choice: Choice) -> None:
        layer = layer_name(operation, args)
        if choice.milliseconds or choice.left_out:
            self.served.setdefault((operation, choice.name), {})[layer] = None
        else:
            self.untimed[f"{operation} {layer} by {choice.name}"] = None
        for name, why in choice.left_out.items():
            self.left_out[f"layers: {operation} {layer} without the {name} kernel: {why}"] = None

    def notes(self) -> list[str]:
        """List which kernels served which layers, and which kernels were left out."""
        notes = [
            f"layers: {operation} by {DISPLAY_NAMES.get(name, name)}, as measured: "
            f"{', '.join(layers)}"
            for (operation, name), layers in self.served.items()
        ]
        if self.untimed and self.served:
            notes.append(f"layers: not measured: {', '.join(self.untimed)}")
        return [*notes, *self.left_out]


class _PlainReference:
    """PyTorch's result, with which other kernels are compared before they are timed."""

    def __init__(self, plain: Kernel, args: Sequence[Any]) -> None:
        self.plain, self.args = plain, args
        self.expected: list[Tensor] | None = None

    def compared(self, kernel: Kernel) -> Callable[[], object]:
        """Give a function that runs a kernel; its first run raises if the result is wrong."""
        verified = kernel is self.plain

        def run() -> None:
            nonlocal verified
            result = kernel.run(*self.args)
            if not verified:
                if self.expected is None:
                    self.expected = tree_leaves(self.plain.run(*self.args))
                worst = max(map(_difference, tree_leaves(result), self.expected), default=0.0)
                if worst:
                    raise RuntimeError(f"its result differs, {worst:.1f} times as far as it may")
                verified = True

        return run


def _difference(result: Tensor, expected: Tensor) -> float:
    """Relative L2 difference, in units of the largest that is allowed."""
    if not expected.numel():
        return 0.0
    if result.dtype != expected.dtype or result.shape != expected.shape:
        return math.inf
    size = float(expected.float().norm())
    if not math.isfinite(size):  # out of range: there is no reference
        return 0.0
    error = float((result.float() - expected.float()).norm())
    allowed = MOST_DIFFERENCE.get(result.dtype, MOST_DIFFERENCE_WIDE) * size
    if error <= allowed:
        return 0.0
    return error / allowed if allowed and math.isfinite(error) else math.inf


def _signature(value: Any) -> Any:
    """Reduce an argument to what kernels depend on: of a tensor, shape and type."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return tuple(value) if isinstance(value, list) else value


def layer_name(operation: str, args: Sequence[Any]) -> str:
    """Name a layer for people, such as 64→64 3×3."""
    w, rest = args[TIMED_OPERATIONS[operation][1]], args[TIMED_OPERATIONS[operation][2] :]
    stride, _, dilation, transposed, _, groups = rest[:6]
    inputs, outputs = (
        (w.shape[0], groups * w.shape[1]) if transposed else (groups * w.shape[1], w.shape[0])
    )
    words = [f"{inputs}→{outputs}", _by(w.shape[2:])]
    words += [f"stride {_by(stride)}"] * (set(stride) != {1})
    words += [f"dilation {_by(dilation)}"] * (set(dilation) != {1})
    words += ["transposed"] * transposed + [f"{groups} groups"] * (groups > 1)
    return " ".join(words)


def layer_key(operation: str, args: Sequence[Any]) -> str:
    """Key of everything that a layer's times depend on; sizes are rounded to powers of two."""
    first, second, third = TIMED_OPERATIONS[operation]
    x, w, rest = args[first], args[second], args[third:]
    activation, _, scale, shuffle = rest[6:10]
    alpha = args[7] if operation == "conv" else args[8]
    sizes: dict[str, object] = {
        "types": f"{str(x.dtype).removeprefix('torch.')}-{str(w.dtype).removeprefix('torch.')}",
        "mode": in_use().mode,
        "points": rounded(len(alpha)),
        "samples": rounded(x.shape[1]),
        "pixels": rounded(x.shape[3:].numel()),
        "activation": activation,
        "scaled": scale != 1,
        "shuffle": shuffle,
    }
    if operation == "conv":
        sizes["residual"] = args[11] is not None
    else:
        sizes["images"] = rounded(args[9])
        sizes["needs"] = "".join(n for n, need in zip("xwbs", args[10], strict=True) if need)
    parts = [f"{key}={value}" for key, value in sizes.items()]
    return " ".join([operation, layer_name(operation, args), *parts])


def _by(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
