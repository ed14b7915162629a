"""Graphs: what is known of how two networks compute, for as long as somebody holds it."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.engine.calls import glance
from faigfast.engine.capture import capture
from faigfast.engine.fuse import fuse
from faigfast.engine.one_sample import single
from faigfast.engine.run import Plan, sorted_nodes
from faigfast.engine.side_by_side import better_side_by_side
from faigfast.engine.trace import Aliased, NotCaptured, Trace, trace
from faigfast.engine.verify import CORNERS
from faigfast.integration.path import WeightPath
from faigfast.models.state import slots, tensors

PLANS = 16  # graphs that are kept
SIZES = 256  # image sizes whose graphs are known

Modules = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Known:
    """What was found out for images of one shape.

    Parameters
    ----------
    plan : Plan or str
        How they are computed; a text says why there is no graph.
    state : any
        Of the networks then: as long as it stays, so does the plan.
    """

    plan: Plan | str
    state: Any


@dataclass(frozen=True)
class Look:
    """What the two networks as they are did with one image.

    Parameters
    ----------
    outputs : tuple
        Of baseline and target.
    alike : bool
        Whether they called the same functions with the same arguments, but for tensors on the line.
    generic : bool
        Whether the target did so on the few pixels of `state`, too: no number follows from sizes.
    state : any
        Of the networks then, as in `Known`.
    """

    outputs: tuple[Any, Any]
    alike: bool
    generic: bool
    state: Any


class Graphs:
    """Plans of a pair of networks: one for every computation, whatever the sizes of images.

    A network is run once, as it is, on an image of every new shape; where it computes what it
    computed for another, the graph is the same. Weights are never kept.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._known: OrderedDict[Any, Known] = OrderedDict()
        self._functional = False  # a network writes on tensors that others see

    def plan(
        self, path: WeightPath, modules: Modules, x: Tensor, state: Any
    ) -> tuple[Plan | str, Look | None]:
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
            Of the networks now, from `state`.

        Returns
        -------
        plan : Plan or str
            A text says why the networks must run point by point.
        look : Look, optional
            What the networks gave, where the plan is new for this shape and to be settled.
        """
        known = self._known.get(_kind(path, x))
        if known is not None and known.state == state:
            self._known.move_to_end(_kind(path, x))
            return known.plan, None
        try:
            # The target first, since both may keep what they make of tensors of their own alone.
            last = self._trace(path, modules[1], x)
            first = glance(path, modules[0], _tensors(path, modules[0]), x)
            if first is None:
                raise NotCaptured("the baseline does not take what the target does")
        except NotCaptured as problem:
            self.settle(path, x, state, str(problem))
            return str(problem), None
        alike = first.calls == last.calls and _same_fixed(path, modules)
        generic = last.calls == state[0][0]
        return self._made(path, last), Look((first.found, last.found), alike, generic, state)

    def settle(self, path: WeightPath, x: Tensor, state: Any, plan: Plan | str) -> None:
        """Remember the plan for images of a shape, or why there is none."""
        _keep(self._known, _kind(path, x), Known(plan, state), SIZES)

    def plan_of(self, path: WeightPath, x: Tensor) -> Plan | None:
        """Find or make the plan for an image by the target alone; None where there is none."""
        try:
            return self._made(path, self._trace(path, path.module, x))
        except NotCaptured:
            return None

    def state(self, path: WeightPath, modules: Modules, x: Tensor) -> Any:
        """Tell what the networks do; equal at another time if they do the same."""
        side = CORNERS[0]
        part = x[:, :, :side, :side] if x.ndim == 4 else x
        seen = self._calls(path, modules, part)
        if None in seen and part.shape != x.shape:  # too small for the networks
            seen = self._calls(path, modules, x)
        return seen, [numbers(module) for module in modules]

    @staticmethod
    def _calls(path: WeightPath, modules: Modules, x: Tensor) -> list[str | None]:
        seen = (glance(path, module, _tensors(path, module), x) for module in reversed(modules))
        return [None if one is None else one.calls for one in seen]

    def _trace(self, path: WeightPath, module: nn.Module, x: Tensor) -> Trace:
        run = partial(trace, path, module, _tensors(path, module), x)
        for functional in (False, True)[self._functional :]:
            try:
                made = run(functional=functional)
                if made.writes:
                    made.captured = capture(made)  # or it writes on what others see
                return made
            except Aliased:
                self._functional = True
        raise NotCaptured("it writes on tensors in a way that cannot be followed")

    def _made(self, path: WeightPath, made: Trace) -> Plan:
        """Find or make the plan of a trace."""
        key = made.digest, _layout(path)
        if key not in self._plans:
            plan = _plan(path, made)
            for other in self._plans.values():
                if alike(other, plan):  # but for numbers, which the losses at the ends show
                    plan.checked = other.checked
            _keep(self._plans, key, plan, PLANS)
        self._plans.move_to_end(key)
        return self._plans[key].resized(made.sizes)


def _plan(path: WeightPath, made: Trace) -> Plan:
    graph = made.captured or capture(made)
    *given, image = (node for node in graph.nodes if node.op == "placeholder")
    keys = tuple(made.keys[:-1])
    moving = {node for node, key in zip(given, keys, strict=True) if key in path.delta}
    alone, taken = single(graph, sorted_nodes(graph, moving, image)[2])
    fuse(graph, moving)
    apart = better_side_by_side(path.module)
    return Plan(graph, made.root, keys, frozenset(path.delta), alone, taken, apart, made.sizes)


def alike(one: Plan, other: Plan) -> bool:
    """Whether two plans do the same, whatever the numbers in it."""
    first, second = ([n.target for n in plan.graph.nodes] for plan in (one, other))
    return first == second and one.moving == other.moving


def _same_fixed(path: WeightPath, modules: Modules) -> bool:
    """Whether two networks have the same buffers where these are not interpolated."""
    if slots(modules[0]).keys() != slots(modules[1]).keys():
        return False
    own = _fixed(path, modules[0])
    return all(
        value.shape == own[key].shape and torch.equal(value, own[key])
        for key, value in path.fixed.items()
    )


def numbers(model: nn.Module) -> list[Any]:
    """Numbers and names that the modules of a network hold, such as the size of its tiles."""
    plain = (bool, int, float, str)
    return [
        (key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if type(value) in plain
    ]


def _keep(place: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    place[key] = value
    place.move_to_end(key)
    while len(place) > most:
        place.popitem(last=False)


def _kind(path: WeightPath, x: Tensor) -> Any:
    return x.shape, x.dtype, x.device, _layout(path)


def _layout(path: WeightPath) -> Any:
    types = tuple((key, value.dtype) for key, value in {**path.fixed, **path.start}.items())
    return types, tuple(path.delta)


def _tensors(path: WeightPath, module: nn.Module) -> dict[str, Tensor]:
    """Give a network's own tensors, in the line's types; those that move require gradients."""
    ends = path.end if module is path.module else path.start
    moving = {key: value.detach().requires_grad_(key in path.delta) for key, value in ends.items()}
    return {**_fixed(path, module), **moving}


def _fixed(path: WeightPath, module: nn.Module) -> dict[str, Tensor]:
    """Give what is not interpolated as a network of the line has it."""
    if module is path.module:
        return path.fixed
    own = {**slots(module), **tensors(module)}
    # What only the target has is the target's.
    return {key: own.get(key, value).detach().to(value.dtype) for key, value in path.fixed.items()}
