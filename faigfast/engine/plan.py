"""Plans: made once for a network and images of one shape. Graphs are kept, weights never."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from faigfast.engine.capture import NotCaptured, capture
from faigfast.engine.execute import Plan, sorted_nodes
from faigfast.engine.fuse import fuse
from faigfast.engine.single import single
from faigfast.path import WeightPath

PLANS = 16  # plans of one network, for images of different sizes

_plans = WeakIdKeyDictionary()  # of OrderedDict[Any, Plan | str] by module


def plan_for(path: WeightPath, x: Tensor, state: str) -> Plan | str:
    """Find or make the plan of a network for images of a shape.

    Parameters
    ----------
    path : WeightPath
        The line.
    x : Tensor
        One image [1, C, *spatial].
    state : str
        Tells apart what the network is beside its tensors, from `faigfast.networks.attributes`.

    Returns
    -------
    Plan or str
        The reason where the network must run point by point.
    """
    made: OrderedDict[Any, Plan | str] = _plans.setdefault(path.module, OrderedDict())
    layout = tuple((key, value.dtype) for key, value in {**path.fixed, **path.start}.items())
    key = (x.shape, x.dtype, x.device, layout, tuple(path.delta), state)
    if key not in made:
        try:
            made[key] = _make(path, x)
        except NotCaptured as problem:
            made[key] = str(problem)
    made.move_to_end(key)
    while len(made) > PLANS:
        made.popitem(last=False)
    return made[key]


def forget(module: nn.Module) -> None:
    """Drop the plans of a network that is not what it was when they were made."""
    _plans.pop(module, None)


def _make(path: WeightPath, x: Tensor) -> Plan:
    module, keys = capture(path, x)
    graph = module.graph
    *given, image = (node for node in graph.nodes if node.op == "placeholder")
    moving = {node for node, key in zip(given, keys, strict=True) if key in path.delta}
    alone, taken = single(graph, sorted_nodes(graph, moving, image)[2])
    fuse(graph, moving)
    return Plan(module, keys, frozenset(path.delta), alone, taken)
