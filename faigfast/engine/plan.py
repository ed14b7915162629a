"""Plans: made once for a network and images of one shape. Graphs are kept, weights never."""

import weakref
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from faigfast.engine.capture import NotCaptured, capture
from faigfast.engine.execute import Plan
from faigfast.engine.fuse import fuse
from faigfast.path import WeightPath

KEPT = 16  # plans of one network, for images of different sizes

_plans: "weakref.WeakKeyDictionary[nn.Module, OrderedDict[Any, Plan | str]]"
_plans = weakref.WeakKeyDictionary()


def plan_for(path: WeightPath, x: Tensor) -> Plan | str:
    """Find or make the plan of a network for images of a shape.

    Parameters
    ----------
    path : WeightPath
        The line.
    x : Tensor
        One image [1, C, *spatial].

    Returns
    -------
    Plan or str
        The reason where the network must run point by point.
    """
    made = _plans.setdefault(path.module, OrderedDict())
    key = (x.shape, x.dtype, x.device, tuple(path.start), tuple(path.fixed), tuple(path.delta))
    if key not in made:
        try:
            made[key] = _make(path, x)
        except NotCaptured as problem:
            made[key] = str(problem)
    made.move_to_end(key)
    while len(made) > KEPT:
        made.popitem(last=False)
    return made[key]


def forget(module: nn.Module) -> None:
    """Drop the plans of a network that is not what it was when they were made."""
    _plans.pop(module, None)


def _make(path: WeightPath, x: Tensor) -> Plan:
    graph, keys = capture(path, x)
    given = [node for node in graph.graph.nodes if node.op == "placeholder"]
    fuse(graph.graph, {n for n, key in zip(given, keys, strict=False) if key in path.delta})
    return Plan(graph, keys, frozenset(path.delta))
