"""Kinks: activations of a running network, whose slopes a backward averages over a cell.

The modes here watch the ATen operations under autograd, so they serve any network as it is. The
engine has operations of its own in place of them (`faigfast.ops.averaged_activation`).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from faigfast.integration.cells import Cell, cells_of, mean_slope
from faigfast.integration.gradients import Evaluate
from faigfast.integration.objective import Objective
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step

aten = torch.ops.aten

# Averaged, as a network runs and as a graph has them.
_KINKS = {
    aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default,
    aten._prelu_kernel.default,
}  # fmt: skip
# Names of all operations with kinks, averaged or not.
_KINKED_NAMES = frozenset({
    "relu", "relu6", "leaky_relu", "prelu", "_prelu_kernel", "rrelu", "rrelu_with_noise",
    "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "abs", "absolute", "maximum",
    "minimum", "fmax", "fmin", "max", "min", "amax", "amin", "max_pool1d", "max_pool2d",
    "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink", "threshold", "elu", "selu", "celu",
    "where", "sort", "topk", "median", "round", "floor", "ceil", "sign", "heaviside",
})  # fmt: skip
_COPIES = {aten.clone.default, aten.detach.default}


def has_kinks(func: Any) -> bool:
    """Whether an ATen operation has kinks, as a network runs it or as a graph has it."""
    if not isinstance(func, torch._ops.OpOverload):
        return False
    return func._schema.name.removeprefix("aten::").rstrip("_") in _KINKED_NAMES


class KinkDetector(TorchDispatchMode):
    """Sees whether a network that runs without gradients has kinks."""

    def __init__(self) -> None:
        super().__init__()
        self.kinked, self.watches = False, True

    def before(self, objective: Objective) -> Objective:
        """Give the objective, whose own kinks do not count."""

        @wraps(objective)
        def after_the_network(output: Any, gt: Tensor) -> Tensor:
            self.watches = False
            return objective(output, gt)

        return after_the_network

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.kinked |= self.watches and has_kinks(func)
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Keeps the value before every kink."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _KINKS:
            self.values.append(args[0].clone())
        return func(*args, **(kwargs or {}))


class _Averaging(TorchDispatchMode):
    """Multiplies gradients at kinks by mean slopes, which follow from recorded values.

    Parameters
    ----------
    here, before, after : list of Tensor
        Values before the kinks at the node, and at the nodes that its cell names.
    cell : Cell
        Of the node.
    """

    def __init__(
        self, here: list[Tensor], before: list[Tensor], after: list[Tensor], cell: Cell
    ) -> None:
        super().__init__()
        self.here, self.before, self.after, self.cell = here, before, after, cell
        self.next = 0
        self.positions: dict[int, int] = {}  # of kinks, by the address that autograd saves

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _KINKS:
            position = self._position_of(args[0])
            result = func(*args, **(kwargs or {}))
            for value in (args[0], result):
                self.positions.pop(value.data_ptr(), None)
                if position is not None:
                    self.positions[value.data_ptr()] = position
            return result
        if func is aten.threshold_backward.default:
            return self._averaged(func, args, args[0], args[1], 0.0)
        if func is aten.leaky_relu_backward.default:
            return self._averaged(func, args, args[0], args[1], args[2])
        if func is aten._prelu_kernel_backward.default:
            gradient, z, weight = args
            gz, gw = func(*args)
            return self._averaged(lambda *_: gz, args, gradient, z, weight), gw
        result = func(*args, **(kwargs or {}))
        if func in _COPIES and args[0].data_ptr() in self.positions:  # autograd saves a copy
            self.positions[result.data_ptr()] = self.positions[args[0].data_ptr()]
        return result

    def _averaged(
        self, func: Any, args: Any, gradient: Tensor, saved: Tensor, slope: float | Tensor
    ) -> Tensor:
        position = self.positions.get(saved.data_ptr())
        if position is None or self.here[position].shape != saved.shape:
            own: Tensor = func(*args)
            return own
        z, before, after = (part[position] for part in (self.here, self.before, self.after))
        return gradient * mean_slope(z, before, after, self.cell, slope)

    def _position_of(self, z: Tensor) -> int | None:
        """Find a value among the recorded ones: a checkpoint computes it again, out of order."""
        count = len(self.here)
        for position in (n % count for n in range(self.next, self.next + count)):
            recorded = self.here[position]
            if recorded.shape == z.shape and torch.allclose(recorded, z, 1e-3, 1e-6):
                self.next = position + 1
                return position
        return None


class KinkAverager:
    """Averages the slopes of kinks at the points of a step, one after the other.

    Parameters
    ----------
    step : Step
        Nodes in ascending order, with cells.
    path, x, gt, objective
        As in `faigfast.integration.gradients.gradients_at`.
    evaluate : callable
        Runs the network at a point.
    """

    def __init__(
        self, step: Step, path: WeightPath, x: Tensor, gt: Tensor, objective: Objective,
        evaluate: Evaluate,
    ) -> None:  # fmt: skip
        assert step.cells is not None
        self.nodes = step.nodes.tolist()
        self.cells = cells_of(self.nodes, step.cells.tolist())
        self.arguments = path, x, gt, objective
        self.evaluate = evaluate
        self.recorded: dict[int, list[Tensor]] = {}

    def at(self, s: int) -> AbstractContextManager[object]:
        """Give the mode in which gradients at node s are averaged over its cell."""
        cell = self.cells[s]
        here, before, after = (self._values(n) for n in (s, cell.before, cell.after))
        for n in [n for n in self.recorded if n < s]:  # later nodes need none before this one
            del self.recorded[n]
        if not _alike((here, before, after)):
            return nullcontext()
        return _Averaging(here, before, after, cell)

    def _values(self, s: int) -> list[Tensor]:
        if s not in self.recorded:
            path, x, gt, objective = self.arguments
            with torch.no_grad(), _Recorder() as recorder:
                self.evaluate(path, self.nodes[s], x, gt, objective)
            self.recorded[s] = recorder.values
        return self.recorded[s]


def _alike(lists: Sequence[Sequence[Tensor]]) -> bool:
    """Whether the network has the same kinks, at least one, at every node."""
    shapes = [[value.shape for value in values] for values in lists]
    return bool(shapes[0]) and all(a == b for a, b in pairwise(shapes))
