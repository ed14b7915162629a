"""Capture: a network's computation on one image as a graph of ATen operations."""

import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from faigfast.networks import without_fakes
from faigfast.path import WeightPath

aten = torch.ops.aten

_DROPOUTS = {
    getattr(aten, name + suffix)
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    for suffix in ("", "_")
}

# A hook may change a gradient, and a node of autograd is asked for to put one there.
_HOOKING = (Tensor.register_hook, Tensor.grad_fn.__get__)  # type: ignore[union-attr]


class NotCaptured(Exception):
    """The network cannot be written as one graph; the message says why."""


def capture(path: WeightPath, x: Tensor) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Write the network's computation on one image as a graph without side effects.

    The network runs once as it is, so that what it caches has values and gradients of its own show.
    Then it runs on tensors without data, so that Python's control flow on shapes is followed and
    control flow on values is refused.

    Parameters
    ----------
    path : WeightPath
        The line; its tensors are the graph's inputs.
    x : Tensor
        One image [1, C, *spatial].

    Returns
    -------
    graph : GraphModule
        Placeholders are the tensors, then x; every node has its value's shape in `meta["val"]`.
    keys : tuple of str
        Names of the tensors in the order of the placeholders.

    Raises
    ------
    NotCaptured
        With the reason.
    """
    _rehearse(path, x)
    # Copies, since a network may write on its tensors, which leaves of autograd do not allow.
    state = {key: value.clone() for key, value in {**path.fixed, **path.at(1.0)}.items()}
    keys, values = tuple(state), list(state.values())

    def forward(*tensors: Tensor) -> Any:
        *given, image = tensors
        return path.evaluate(dict(zip(keys, given, strict=True)), image)

    with without_fakes(path.module):
        graph = _trace(forward, [*values, x], pre_dispatch=True)
    _without_gradient_modes(graph.graph)
    _without_dropout(graph.graph)
    if not _without_side_effects(graph.graph):
        # Lower, where views and writes can be told apart, at the price of composed operations.
        with without_fakes(path.module):
            graph = _trace(functionalize(forward), [*values, x], pre_dispatch=False)
        if not _without_side_effects(graph.graph):
            raise NotCaptured("it writes on tensors in a way that cannot be followed")
    _without_copies(graph.graph)
    for node in graph.graph.nodes:
        if node.op == "call_function" and _draws(node):
            raise NotCaptured(f"{node.target} draws random numbers")
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, keys


def _rehearse(path: WeightPath, x: Tensor) -> None:
    """Run the network once as it is; refuse gradients that its operations do not have."""
    nothing = saved_tensors_hooks(lambda value: None, lambda value: value)  # kept for a backward
    with _refusing(), nothing, _Hooks() as hooks, _own_functions() as functions:
        path.call(path.at(1.0), x)
    if functions:
        raise NotCaptured(f"{', '.join(functions)} may have a gradient of its own")
    if hooks.found:
        raise NotCaptured("a hook may change its gradients")


class _Hooks(TorchFunctionMode):
    """Notices hooks on gradients, those of modules included."""

    found = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.found |= func in _HOOKING
        return func(*args, **(kwargs or {}))


@contextmanager
def _own_functions() -> Iterator[dict[str, None]]:
    """Collect the names of the autograd functions that this thread applies, torch's own aside."""
    found: dict[str, None] = {}
    original, here = vars(Function)["apply"], threading.get_ident()

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == here and not cls.__module__.startswith("torch."):
            found.setdefault(cls.__qualname__)
        return original.__func__(cls, *args, **kwargs)

    Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        Function.apply = original  # type: ignore[method-assign]


def _trace(forward: Any, inputs: Sequence[Tensor], *, pre_dispatch: bool) -> fx.GraphModule:
    with _refusing():
        return make_fx(
            forward,
            tracing_mode="fake",
            pre_dispatch=pre_dispatch,
            _allow_non_fake_inputs=True,  # tensors that a network keeps outside its state dict
        )(*inputs)


@contextmanager
def _refusing() -> Iterator[None]:
    """Make any error of the network's own code the reason why it is not captured."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:
        cause = problem.__cause__ or problem
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise NotCaptured(f"{type(cause).__name__}: {reason[:200]}") from problem


def _without_gradient_modes(graph: fx.Graph) -> None:
    """Detach what is computed under no_grad instead of switching gradients off."""
    enabled = True
    for node in list(graph.nodes):
        if node.target is torch._C._set_grad_enabled:
            enabled = node.args[0]
            graph.erase_node(node)
        elif not enabled and isinstance(node.meta.get("val"), Tensor):
            with graph.inserting_after(node):
                new = graph.call_function(aten.detach.default, (node,))
            new.meta.update(node.meta)
            node.replace_all_uses_with(new, partial(operator.is_not, new))


def _without_dropout(graph: fx.Graph) -> None:
    """Leave out what drops nothing; in eval mode its result is its input, not a copy."""
    for node in list(graph.nodes):
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _DROPOUTS and not _draws(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _without_copies(graph: fx.Graph) -> None:
    """Write `copy`, which has no gradient, as the change of shape and type that it is."""
    for node in list(graph.nodes):
        if node.target is aten.copy.default:
            like, source = node.meta["val"], node.args[1]
            with graph.inserting_before(node):
                new = graph.call_function(aten.expand.default, (source, list(like.shape)))
                new = graph.call_function(aten.to.dtype, (new, like.dtype))
            new.meta.update(node.meta)
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _draws(node: fx.Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    # Dropout and attention are marked so even where they drop nothing.
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in arguments}
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    if "dropout_p" in given:
        return bool(given["dropout_p"])
    return given.get("train", given.get("training")) is not False


def _without_side_effects(graph: fx.Graph) -> bool:
    """Replace writes on tensors that nothing else sees; False where that is not possible."""
    seen_through: dict[fx.Node, set[fx.Node]] = {}  # a value and all views of the same memory
    for node in list(graph.nodes):
        group = {node}
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            # getitem takes a part of what it is given.
            for other in node.all_input_nodes if node.op == "call_function" else ():
                group |= seen_through[other]
        elif schema.is_mutable:
            written = node.args[0]
            if not isinstance(written, fx.Node) or seen_through[written] != {written}:
                return False
            functional = _functional(node.target)
            if functional is None:
                return False
            with graph.inserting_before(node):
                new = graph.call_function(functional, node.args, node.kwargs)
            new.meta.update(node.meta)
            node.replace_all_uses_with(new)
            written.replace_all_uses_with(new, partial(_after, new))
            graph.erase_node(node)
            node, group = new, {new}
        elif any(argument.alias_info is not None for argument in schema.arguments):
            for other in node.all_input_nodes:
                group |= seen_through[other]
        for member in group:
            seen_through[member] = group
    return True


def _after(new: fx.Node, user: fx.Node) -> bool:
    return user is not new and new < user


def _functional(target: Any) -> Any:
    """Find aten.relu.default for aten.relu_.default."""
    packet, _, overload = str(target).removeprefix("aten.").rpartition(".")
    if not packet.endswith("_") or not str(target).startswith("aten."):
        return None
    found = getattr(torch.ops.aten, packet[:-1], None)
    return getattr(found, overload, None)
