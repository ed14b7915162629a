"""Execute: run a plan at several points of the line for several images."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from faigfast.backend.gpu.scaling_segments import GradientRescaler, count_scaling_segments
from faigfast.engine.chains import NodeChain, chained
from faigfast.engine.one_sample import OnePoint
from faigfast.engine.op_rules import evaluate, is_kinked
from faigfast.engine.points import Moving, Points
from faigfast.engine.samples import Samples
from faigfast.integration.kinks import has_kinks
from faigfast.integration.path import WeightPath
from faigfast.ops.path_values import arranged, new_gradient_sums
from faigfast.ops.registry import in_use, using

Values = dict[fx.Node, Any]

# Backends whose kernels interpolate weights while they reorder them, also for a single point.
ON_THE_FLY = {"cpu"}


@dataclass(eq=False)
class Plan:
    """A network's graph, ready to run at many points of the line.

    Parameters
    ----------
    graph : Graph
        Placeholders are tensors by `keys`, then x.
    constants : nn.Module
        Holds the graph's constant tensors.
    keys : tuple of str
        Names of the network's tensors.
    moving : frozenset of str
        Names of the tensors that move along the line.
    sample_module : GraphModule
        Nodes that depend on image and point, for one sample; see `faigfast.engine.one_sample`.
    sample_inputs : list of str
        Names of the nodes whose values `sample_module` takes.
    side_by_side : bool
        Whether single points side by side are faster than many together in C++ kernels.
    sizes : sequence of int
        Bytes of every value of one sample, by the nodes' `meta["place"]`, for one image size.
    notes : dict of str to None
        Operations that run slowly, and why, in the order of their runs.
    checked : dict
        Difference from the network, by the kind of chunk; "" where there is none.
    needs : dict
        Bytes that a chunk takes, by its kind and backend, and by the bytes of a sample's values.
    """

    graph: fx.Graph
    constants: nn.Module
    keys: tuple[str, ...]
    moving: frozenset[str]
    sample_module: fx.GraphModule
    sample_inputs: list[str]
    side_by_side: bool
    sizes: Sequence[int]
    notes: dict[str, None] = field(default_factory=dict)
    checked: dict[Any, str] = field(default_factory=dict)
    needs: dict[Any, dict[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the nodes by what they depend on."""
        *given, self.x = (n for n in self.graph.nodes if n.op == "placeholder")
        self.tensors = dict(zip(given, self.keys, strict=True))
        self.output = next(n for n in self.graph.nodes if n.op == "output")
        moving = {node for node, key in self.tensors.items() if key in self.moving}
        self.fixed, self.image, self.sample = sorted_nodes(self.graph, moving, self.x)
        self.scaling_segments = count_scaling_segments(self.sample, moving)
        self.averages = any(is_kinked(node) for node in self.sample)
        self.kinked = any(is_kinked(n) or has_kinks(n.target) for n in self.graph.nodes)
        self.cuts: dict[int, list[list[fx.Node]]] = {}
        self.with_chains: dict[tuple[fx.Node, ...], list[fx.Node | NodeChain]] = {}

    def runs_alone(self, backend: str) -> bool:
        """Whether one image at one point runs the network's own graph, which mixes nothing."""
        return not backend or (backend in ON_THE_FLY and self.side_by_side)

    def given(self, tensors: Mapping[str, Any]) -> Values:
        """Give the tensors of `path_tensors` by their nodes."""
        return {node: tensors[key] for node, key in self.tensors.items()}

    def resized(self, sizes: Sequence[int]) -> "Plan":
        """Give the plan for another image size; both share notes, checks and memory counts."""
        other = copy.copy(self)
        other.sizes = sizes
        return other

    def size(self, node: fx.Node) -> int:
        """Bytes of a node's value for one sample; 0 for a value that is no tensor."""
        return self.sizes[node.meta["place"]] if "place" in node.meta else 0

    @property
    def bytes_of_sample(self) -> int:
        """Bytes of all values of one sample together."""
        return sum(map(self.size, self.sample))

    def segments(self, count: int) -> list[list[fx.Node]]:
        """Cut the nodes that depend on image and point where few bytes are alive."""
        if count not in self.cuts:
            self.cuts[count] = self._segments(count) if count > 1 else [self.sample]
        return self.cuts[count]

    def chains(self, nodes: Sequence[fx.Node]) -> list[fx.Node | NodeChain]:
        """Group convolutions that follow each other among some nodes into chains."""
        key = tuple(nodes)
        if key not in self.with_chains:
            moving = {node for node, name in self.tensors.items() if name in self.moving}
            self.with_chains[key] = chained(nodes, moving)
        return self.with_chains[key]

    def _segments(self, count: int) -> list[list[fx.Node]]:
        sizes = [self.size(node) for node in self.sample]
        total, cuts, last = sum(sizes), [], 0
        live = self._live_bytes()
        for k in range(1, count):
            # Near an equal share of all values, after the node with the fewest live bytes.
            low, high = ((k + shift) * total / count for shift in (-0.4, 0.4))
            reached, best = 0, -1
            for i, size in enumerate(sizes[:-1]):
                reached += size
                here = low <= reached <= high and i + 1 > last
                if here and live[i] < (live[best] if best >= 0 else math.inf):
                    best = i
            if best >= 0:
                last = best + 1
                cuts.append(last)
        edges = [0, *cuts, len(self.sample)]
        return [self.sample[a:b] for a, b in pairwise(edges)]

    def _live_bytes(self) -> list[float]:
        """Live bytes after each node for one sample; infinite while a tuple is alive."""
        positions = {node: i for i, node in enumerate(self.sample)}
        end = len(self.sample)
        alive = [0.0] * end
        for node, start in positions.items():
            last = max((positions.get(user, end) for user in node.users), default=start)
            size = self.size(node) if "place" in node.meta else math.inf
            for i in range(start, min(last, end)):
                alive[i] += size
        return alive


def sorted_nodes(
    graph: fx.Graph, moving: set[fx.Node], x: fx.Node
) -> tuple[list[fx.Node], list[fx.Node], list[fx.Node]]:
    """Sort nodes: independent of image and point, dependent on the image alone, or on the point."""
    on_image, on_line = {x}, set(moving)
    fixed, image, sample = [], [], []
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        inputs = set(node.all_input_nodes)
        if inputs & on_line:
            on_line.add(node)
            sample.append(node)
        elif inputs & on_image:
            on_image.add(node)
            image.append(node)
        else:
            fixed.append(node)
    return fixed, image, sample


def path_tensors(path: WeightPath, values: torch.dtype | None = None) -> dict[str, Any]:
    """All inputs of a plan but x: moving tensors, without gradient sums yet, and fixed ones.

    Fixed tensors have the type `values`, if one is given.
    """
    given: dict[str, Any] = {
        key: arranged(_cast(value, values)) for key, value in path.fixed.items()
    }
    for key, start in path.start.items():
        if key in path.delta:
            parts = arranged(start), arranged(path.delta[key])
            given[key] = Moving(*parts, start.new_empty(0))
        else:
            given[key] = arranged(_cast(start, values))
    return given


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    """Cast floating-point tensors, if a type is given."""
    if dtype is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(dtype)


def with_gradient_sums(given: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Give the same tensors, with new gradient sums for a number of images in all phases."""
    return {
        key: replace(value, gradient_sums=new_gradient_sums(value.w0.shape, images, value.w0))
        if isinstance(value, Moving)
        else value
        for key, value in given.items()
    }


def current_gradients(given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Give the summed gradients [N, *w] by name, of the tensors that have one."""
    moving = {key: value for key, value in given.items() if isinstance(value, Moving)}
    return {
        key: value.gradient_sums.grad
        for key, value in moving.items()
        if value.gradient_sums.grad is not None
    }


def take_gradients(given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Give `current_gradients`, and reset them."""
    gradients = current_gradients(given)
    for key in gradients:
        given[key].gradient_sums.grad = None
    return gradients


def prepare(plan: Plan, given: Mapping[str, Any], x: Tensor) -> Values:
    """Compute the values that all points share.

    Parameters
    ----------
    given : mapping of str to Tensor or Moving
        From `path_tensors`.
    x : Tensor
        [N, C, *spatial].
    """
    values = plan.given(given)
    values[plan.x] = Samples(_cast(x, in_use().values)[None, :, None])
    with torch.no_grad():
        points = Points.at([0.0], x)
        run_nodes(plan, plan.fixed + plan.image, values, points)
    return values


def forward(plan: Plan, prepared: Values, points: Points, segments: int = 1) -> Any:
    """Evaluate the network; its output has `Samples` [P, N, *own] in place of tensors.

    Parameters
    ----------
    prepared : dict
        From `prepare`.
    points : Points
        Points of the line.
    segments : int
        With more than one, backward computes the values inside each again.
    """
    one = len(points.nodes) == points.images == segments == 1
    if one and points.cells is None and plan.runs_alone(in_use().backend):
        return _one_sample(plan, prepared, points.nodes[0])
    values = dict(prepared)
    if len(points.nodes) == 1 and in_use().backend not in ON_THE_FLY:
        values.update(_at_one_point(plan, prepared, points.nodes[0]))
    scale = in_use().scale if torch.is_grad_enabled() else None
    rescaler = None if scale is None else GradientRescaler(scale, values)
    parts = plan.segments(segments if scale is None else max(segments, plan.scaling_segments))
    remaining, done = {plan.output, *plan.sample}, set[fx.Node]()
    for part in parts:
        remaining -= set(part)
        done |= set(part)
        if rescaler is not None:
            rescaler.begin(part, values)
        if segments == 1:
            run_nodes(plan, part, values, points, [n for n in part if remaining & n.users.keys()])
        else:
            _run_again(plan, part, values, points, remaining)
        for dead in [n for n in done if n in values and not remaining & n.users.keys()]:
            del values[dead]
        if rescaler is not None and part is not parts[-1]:
            rescaler.pass_on(values, remaining, points.images, done)
    return map_arg(plan.output.args[0], values.__getitem__)


def _one_sample(plan: Plan, prepared: Values, alpha: float) -> Any:
    """Evaluate one image at one point by the graph as it is."""
    moving = {n: v for n, v in prepared.items() if isinstance(v, Moving)}
    parts = [getattr(v, part) for part in ("w0", "dw", "gradient_sums") for v in moving.values()]
    at_point = dict(zip(moving, OnePoint.apply(alpha, *parts), strict=True))
    given = {
        node.name: value.data[0, 0] if isinstance(value, Samples) else at_point.get(node, value)
        for node, value in prepared.items()
    }
    out = plan.sample_module(*(given[name] for name in plan.sample_inputs))
    return tree_map(lambda v: Samples(v[None, None]) if isinstance(v, Tensor) else v, out)


def _at_one_point(plan: Plan, values: Values, alpha: float) -> Values:
    """Interpolate every tensor that moves once, for all operations and their backward."""
    moving = {node: values[node] for node in plan.tensors if isinstance(values[node], Moving)}
    starts, deltas = ([getattr(v, part) for v in moving.values()] for part in ("w0", "dw"))
    points = torch._foreach_add(starts, deltas, alpha=alpha)
    return {
        node: replace(value, w0=point, dw=None)
        for (node, value), point in zip(moving.items(), points, strict=True)
    }


def run_nodes(
    plan: Plan,
    nodes: Sequence[fx.Node],
    values: Values,
    points: Points,
    keep: Iterable[fx.Node] | None = None,
) -> None:
    """Evaluate nodes in order; with `keep`, drop every other value after its last use."""
    done: dict[fx.Node, list[fx.Node]] = {}
    if keep is not None:
        inside, keep = set(nodes), set(keep)
        last = {n: node for node in nodes for n in (node, *node.all_input_nodes) if n in inside}
        for node, end in last.items():
            if node not in keep:
                done.setdefault(end, []).append(node)
    narrow = in_use().values

    for part in plan.chains(nodes) if in_use().backend == "cpu" else nodes:
        together = isinstance(part, NodeChain) and part.run(values, points)
        for node in part.nodes if isinstance(part, NodeChain) else [part]:
            if not together:
                values[node] = _value(plan, node, values, points, narrow)
            for dead in done.get(node, ()):
                values.pop(dead, None)  # a value inside a chain was never made


def _value(
    plan: Plan, node: fx.Node, values: Values, points: Points, narrow: torch.dtype | None
) -> Any:
    if node.op == "get_attr":
        return _cast(getattr(plan.constants, str(node.target)), narrow)
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    if narrow is not None:  # a type written in the graph means the type of its images
        graph_type = plan.x.meta["val"].dtype
        args, kwargs = tree_map(lambda v: narrow if v is graph_type else v, (args, kwargs))
    value, note = evaluate(node.target, points, args, kwargs)
    if note:
        plan.notes.setdefault(note)
    return value


def _run_again(
    plan: Plan, part: Sequence[fx.Node], values: Values, points: Points, later: set[fx.Node]
) -> None:
    """Run a segment whose inner values are computed again in backward."""
    inside = set(part)
    outer = {n for node in part for n in node.all_input_nodes} - inside
    entering = [n for n in outer if isinstance(values[n], Samples)]
    leaving = [node for node in part if set(node.users) & later]

    outer_values = {n: values[n] for n in outer}  # as they are now
    use = in_use()  # backward may run in another thread, which does not know it

    def body(*data: Tensor) -> tuple[Tensor, ...]:
        inner = dict(outer_values)
        inner |= {n: Samples(d) for n, d in zip(entering, data, strict=True)}
        with using(use):
            run_nodes(plan, part, inner, points, leaving)
        return tuple(inner[node].data for node in leaving)

    recomputed = checkpoint(
        body,
        *(values[n].data for n in entering),
        use_reentrant=False,
        preserve_rng_state=False,
    )
    values.update((node, Samples(data)) for node, data in zip(leaving, recomputed, strict=True))
