"""Graphs: the plans of a pair of networks; the holder decides how long they live."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.engine.calls import record_calls
from faigfast.engine.capture import capture
from faigfast.engine.fuse import fuse
from faigfast.engine.not_captured import NeedsFunctional, NotCaptured
from faigfast.engine.one_sample import sample_module
from faigfast.engine.run import Plan, sorted_nodes
from faigfast.engine.side_by_side import better_side_by_side
from faigfast.engine.trace import Trace, trace
from faigfast.engine.verify import CORNER_SIDES
from faigfast.integration.path import WeightPath
from faigfast.models.packing import packing
from faigfast.models.state import slots, tensors

PLANS = 16  # most plans that are kept
SIZES = 256  # most image sizes whose plans are kept

Modules = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class KnownPlan:
    """The plan for images of one shape.

    Parameters
    ----------
    plan : Plan or str
        A text says why there is no graph.
    state : any
        State of the networks then; the plan holds while it is equal.
    """

    plan: Plan | str
    state: Any


@dataclass(frozen=True)
class PairOutputs:
    """Outputs of the two networks as they are for one image.

    Parameters
    ----------
    values : tuple
        Output of baseline and of target.
    same_calls : bool
        Whether both called the same functions with equal arguments, tensors on the line aside.
    generic : bool
        Whether the target's calls on the few pixels of `state` are equal: none depends on sizes.
    state : any
        State of the networks then, as in `KnownPlan`.
    """

    values: tuple[Any, Any]
    same_calls: bool
    generic: bool
    state: Any


class Graphs:
    """Plans of a pair of networks: one for every computation; image sizes share it.

    A network runs once, as it is, on an image of every new shape; if its operations equal those of
    another shape, the plan is the same. Weights are never kept.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._known: OrderedDict[Any, KnownPlan] = OrderedDict()
        self._functional = False  # whether a network writes on tensors that others see

    def plan(
        self, path: WeightPath, modules: Modules, x: Tensor, state: Any
    ) -> tuple[Plan | str, PairOutputs | None]:
        """Find or make the plan for images of a shape.

        Parameters
        ----------
        path : WeightPath
            The line.
        modules : tuple of nn.Module
            Baseline and target.
        x : Tensor
            One image [1, C, *spatial].
        state : any
            State of the networks now, from `state`.

        Returns
        -------
        plan : Plan or str
            A text says why the networks must run point by point.
        outputs : PairOutputs, optional
            None unless the plan is new for this shape; then `settle` is still to be called.
        """
        known = self._known.get(_kind(path, x))
        if known is not None and known.state == state:
            self._known.move_to_end(_kind(path, x))
            return known.plan, None
        try:
            # The target first, since both may cache values computed from their own tensors alone.
            target = self._trace(path, modules[1], x)
            baseline = record_calls(path, modules[0], _tensors(path, modules[0]), x)
            if baseline is None:
                raise NotCaptured("the baseline does not take what the target does")
        except NotCaptured as problem:
            self.settle(path, x, state, str(problem))
            return str(problem), None
        same_calls = baseline.calls == target.calls and _same_fixed(path, modules)
        generic = target.calls == state[0][0]
        outputs = (baseline.output, target.output)
        return self._plan_of_trace(path, target), PairOutputs(outputs, same_calls, generic, state)

    def known_reason(self, path: WeightPath, modules: Modules, x: Tensor) -> str:
        """Say why images of a shape run point by point; "" where this is not known.

        A network whose calls have changed since is right point by point too, so `state`, which
        runs the networks, is not needed.
        """
        known = self._known.get(_kind(path, x))
        if known is None or not isinstance(known.plan, str):
            return ""
        return known.plan if known.state[1] == [numbers(module) for module in modules] else ""

    def settle(self, path: WeightPath, x: Tensor, state: Any, plan: Plan | str) -> None:
        """Remember the plan for images of a shape, or why there is none."""
        _keep(self._known, _kind(path, x), KnownPlan(plan, state), SIZES)

    def plan_of(self, path: WeightPath, x: Tensor) -> Plan | None:
        """Find or make the plan for an image by the target alone; None where there is none."""
        try:
            return self._plan_of_trace(path, self._trace(path, path.module, x))
        except NotCaptured:
            return None

    def state(self, path: WeightPath, modules: Modules, x: Tensor) -> Any:
        """Describe the networks' calls and numbers; equal if they compute the same."""
        side = CORNER_SIDES[0]
        part = x[:, :, :side, :side] if x.ndim == 4 and packing() is None else x
        calls = self._calls(path, modules, part)
        if None in calls and part.shape != x.shape:  # too small for the networks
            calls = self._calls(path, modules, x)
        return calls, [numbers(module) for module in modules]

    @staticmethod
    def _calls(path: WeightPath, modules: Modules, x: Tensor) -> list[str | None]:
        records = (
            record_calls(path, module, _tensors(path, module), x) for module in reversed(modules)
        )
        return [None if record is None else record.calls for record in records]

    def _trace(self, path: WeightPath, module: nn.Module, x: Tensor) -> Trace:
        run = partial(trace, path, module, _tensors(path, module), x)
        for functional in (False, True)[self._functional :]:
            try:
                made = run(functional=functional)
                if made.writes:
                    made.captured = capture(made)  # raises where others see the written tensor
                return made
            except NeedsFunctional:
                self._functional = True
        raise NotCaptured("it writes on tensors in a way that cannot be followed")

    def _plan_of_trace(self, path: WeightPath, made: Trace) -> Plan:
        """Find or make the plan of a trace."""
        key = made.digest, _layout(path)
        if key not in self._plans:
            plan = _plan(path, made)
            for other in self._plans.values():
                if same_operations(other, plan):  # the losses at the ends check the numbers
                    plan.checked = other.checked
            _keep(self._plans, key, plan, PLANS)
        self._plans.move_to_end(key)
        return self._plans[key].resized(made.sizes)


def _plan(path: WeightPath, made: Trace) -> Plan:
    graph = made.captured or capture(made)
    *given, image = (node for node in graph.nodes if node.op == "placeholder")
    keys = tuple(made.keys[:-1])
    moving = {node for node, key in zip(given, keys, strict=True) if key in path.delta}
    module, inputs = sample_module(graph, sorted_nodes(graph, moving, image)[2])
    fuse(graph, moving)
    side_by_side = better_side_by_side(graph)
    constants, names = made.root, frozenset(path.delta)
    return Plan(graph, constants, keys, names, module, inputs, side_by_side, made.sizes)


def same_operations(one: Plan, other: Plan) -> bool:
    """Whether two plans have the same operations and moving tensors; numbers may differ."""
    first, second = ([n.target for n in plan.graph.nodes] for plan in (one, other))
    return first == second and one.moving == other.moving


def _same_fixed(path: WeightPath, modules: Modules) -> bool:
    """Whether two networks have equal values for every tensor off the line."""
    if slots(modules[0]).keys() != slots(modules[1]).keys():
        return False
    own = _fixed(path, modules[0])
    return all(
        value.shape == own[key].shape and torch.equal(value, own[key])
        for key, value in path.fixed.items()
    )


def numbers(model: nn.Module) -> list[Any]:
    """Numbers and strings in the modules of a network, such as the size of its tiles."""
    types = (bool, int, float, str)
    return [
        (key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if type(value) in types
    ]


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)


def _kind(path: WeightPath, x: Tensor) -> Any:
    return x.shape, x.dtype, x.device, _layout(path)


def _layout(path: WeightPath) -> Any:
    types = tuple((key, value.dtype) for key, value in {**path.fixed, **path.start}.items())
    return types, tuple(path.delta)


def _tensors(path: WeightPath, module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a network in the line's types; moving ones require gradients."""
    own = path.end if module is path.module else path.start
    moving = {key: value.detach().requires_grad_(key in path.delta) for key, value in own.items()}
    return {**_fixed(path, module), **moving}


def _fixed(path: WeightPath, module: nn.Module) -> dict[str, Tensor]:
    """Give a network's own values for the tensors off the line."""
    if module is path.module:
        return path.fixed
    own = {**slots(module), **tensors(module)}
    # A tensor that only the target has comes from the target.
    return {key: own.get(key, value).detach().to(value.dtype) for key, value in path.fixed.items()}
