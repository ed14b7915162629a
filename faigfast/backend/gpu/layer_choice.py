"""Which backend's kernel serves a convolution fastest: measured on the device, shape by shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from faigfast.backend.gpu.timed_choices import Candidate, Choice, Choices, device_name, rounded
from faigfast.ops.registry import KERNELS, Kernel, in_use
from faigfast.version import __version__

# Operation → places of input, weight and the first of the arguments from stride to shuffle.
CHOSEN = {"conv": (0, 1, 12), "conv_backward": (1, 3, 11)}
RIVALS = ("triton", "cuda", "")  # backends among which is chosen; "" is PyTorch's cuDNN
SHOWN = {"plain": "PyTorch (cuDNN, channels-last)", "cuda": "cuda (cuDNN, channels-last)"}
# Relative L2 by which a kernel's results may differ from PyTorch's in the same type.
BOUNDS = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
WIDE_BOUND = 1e-4


def named(device: torch.device) -> str:
    """Name a device and whose kernels there are, since a choice holds for these alone."""
    return f"{device_name(device)}, torch {torch.__version__}, faigfast {__version__}"


# Compiling a candidate counts; another backend's kernel must be worth it.
LAYERS = Choices("layers.json", seconds=20.0, altogether=120.0, margin=1.05, name=named)


class LayerChoice:
    """Chooses kernels in one call of `attribute`.

    Parameters
    ----------
    rivals : sequence of str
        Backends whose kernels take part beside the one in use.
    choices : Choices
        What was measured, here and before.
    """

    def __init__(self, rivals: Sequence[str] = RIVALS, choices: Choices = LAYERS) -> None:
        self.rivals, self.choices = rivals, choices
        self.known: dict[Any, Kernel] = {}
        self.served: dict[tuple[str, str], dict[str, None]] = {}  # layers by operation and kernel
        self.untimed: dict[str, None] = {}
        self.left_out: dict[str, None] = {}

    def kernel(self, operation: str, own: Kernel, args: Sequence[Any]) -> Kernel:
        """Take the fastest kernel that serves these arguments.

        Parameters
        ----------
        operation : str
            Of the table; those that are not in `CHOSEN` keep their own.
        own : Kernel
            Of the backend in use; it stays where none is clearly faster.
        args : sequence
            Of the operation.
        """
        if operation not in CHOSEN or own.name == "hopper":  # asked for by FAIGFAST_HOPPER
            return own
        memo = operation, own.name, *map(_kind, args)
        if memo not in self.known:
            self.known[memo] = self._measured(operation, own, args)
        return self.known[memo]

    def _measured(self, operation: str, own: Kernel, args: Sequence[Any]) -> Kernel:
        x = args[CHOSEN[operation][0]]
        plain = KERNELS[operation][-1]
        kernels = [own]
        # What multiplies float32 by matrix instructions has no rival of that precision.
        if not (in_use().mode != "ieee" and x.dtype == torch.float32):
            kernels += [
                other
                for other in (plain, *KERNELS[operation])
                if other.backend in self.rivals and not other.refuses(*args)
            ]
        kernels = list({kernel.name: kernel for kernel in kernels}.values())
        yardstick = _Yardstick(plain, args)
        ways = [Candidate(k.name, k, yardstick.compared(k)) for k in kernels]
        # Whose own kernel it is counts, and which others were there.
        key = f"{layer_key(operation, args)} of {' '.join(kernel.name for kernel in kernels)}"
        with torch.no_grad():
            found, choice = self.choices.chosen(x.device, key, ways)
        self._note(operation, args, choice)
        return found

    def _note(self, operation: str, args: Sequence[Any], choice: Choice) -> None:
        layer = layer_name(operation, args)
        if choice.milliseconds or choice.left_out:
            self.served.setdefault((operation, choice.name), {})[layer] = None
        else:
            self.untimed[f"{operation} {layer} by {choice.name}"] = None
        for name, why in choice.left_out.items():
            self.left_out[f"layers: {operation} {layer} without the {name} kernel: {why}"] = None

    def notes(self) -> list[str]:
        """Tell which kernels served which layers, and which were left out."""
        found = [
            f"layers: {operation} by {SHOWN.get(name, name)}, as measured: {', '.join(layers)}"
            for (operation, name), layers in self.served.items()
        ]
        if self.untimed and self.served:
            found.append(f"layers: not measured: {', '.join(self.untimed)}")
        return [*found, *self.left_out]


class _Yardstick:
    """What PyTorch computes, against which others are compared before they are timed."""

    def __init__(self, plain: Kernel, args: Sequence[Any]) -> None:
        self.plain, self.args = plain, args
        self.expected: list[Tensor] | None = None

    def compared(self, kernel: Kernel) -> Callable[[], object]:
        """Run a kernel; refuse it at its first run if it is wrong."""
        right = kernel is self.plain

        def run() -> None:
            nonlocal right
            found = kernel.run(*self.args)
            if not right:
                if self.expected is None:
                    self.expected = tree_leaves(self.plain.run(*self.args))
                worst = max(map(_difference, tree_leaves(found), self.expected), default=0.0)
                if worst:
                    raise RuntimeError(f"its result differs, {worst:.1f} times as far as it may")
                right = True

        return run


def _difference(found: Tensor, expected: Tensor) -> float:
    """Relative L2 difference, in units of what is allowed."""
    if not expected.numel():
        return 0.0
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return math.inf
    size = float(expected.float().norm())
    if not math.isfinite(size):  # out of range, and so nothing to compare with
        return 0.0
    error = float((found.float() - expected.float()).norm())
    allowed = BOUNDS.get(found.dtype, WIDE_BOUND) * size
    if error <= allowed:
        return 0.0
    return error / allowed if allowed and math.isfinite(error) else math.inf


def _kind(value: Any) -> Any:
    """Take of an argument what kernels depend on: points are counted, not looked at."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return tuple(value) if isinstance(value, list) else value


def layer_name(operation: str, args: Sequence[Any]) -> str:
    """Name a layer as a person would."""
    w, rest = args[CHOSEN[operation][1]], args[CHOSEN[operation][2] :]
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
    """Name all that a layer's times depend on; sizes count by powers of two."""
    first, second, third = CHOSEN[operation]
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
