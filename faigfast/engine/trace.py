"""Trace: run a network once as it is and record its operations.

Every operation runs on real tensors; one that depends on the network's tensors or the image becomes
a step, and the rest (tables, masks, index maps) constants. The digest of the steps names the
computation of the target: two sizes of an image with one digest share one plan (`Graphs`). The
baseline is not traced; its calls of torch functions are compared with the target's `calls`.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from faigfast.engine.calls import CallRecorder, content_name
from faigfast.engine.effects import draws, effects_of
from faigfast.engine.filled_memory import filled_memory
from faigfast.engine.not_captured import NeedsFunctional, NotCaptured
from faigfast.engine.own_functions import as_ordinary_code, own_gradients
from faigfast.engine.value_reads import replacement_of
from faigfast.integration.path import WeightPath
from faigfast.models.state import copy_of

aten = torch.ops.aten

IMAGE = "image"  # the key of the image among the inputs

# A hook may change a gradient; `grad_fn` is how code reaches autograd nodes to hook them.
_HOOKING = (Tensor.register_hook, Tensor.grad_fn.__get__)  # type: ignore[union-attr]
# These pass values to or from Python without torch's dispatcher.
_READING: frozenset[Any] = frozenset(
    getattr(Tensor, name)
    for name in (
        "numpy", "tolist", "__array__", "__deepcopy__", "__dlpack__", "data_ptr", "untyped_storage",
    )
) | {Tensor.data.__set__}  # type: ignore[attr-defined]  # fmt: skip
_MASKS = (torch.bool, torch.uint8)


@dataclass(eq=False)
class Trace:
    """The operations of a network for one image.

    Parameters
    ----------
    keys : list of str
        Names of the inputs; the last is the image's.

    Attributes
    ----------
    graph : Graph
        Its placeholders are the inputs. `meta` of a node has a tensor without data in the shape of
        its value as "val", and the value's place among all as "place".
    root : nn.Module
        Holds the constants.
    sizes : list of int
        Bytes of every value, by place.
    output : any
        Output of the network.
    digest : str
        Names the computation: operations, their arguments, and which sizes are 1 or equal.
    calls : str
        Digest of the torch functions that were called, as in `faigfast.engine.calls.CallRecord`.
    captured : Graph, optional
        Result of `faigfast.engine.capture.capture`, if already computed.
    """

    keys: list[str]
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: nn.Module = field(default_factory=nn.Module)
    sizes: list[int] = field(default_factory=list)
    output: Any = None
    digest: str = ""
    calls: str = ""
    captured: fx.Graph | None = None

    @property
    def writes(self) -> bool:
        """Whether an operation writes on an argument."""
        schemas = (getattr(node.target, "_schema", None) for node in self.graph.nodes)
        return any(schema is not None and schema.is_mutable for schema in schemas)


def trace(
    path: WeightPath,
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    functional: bool = False,
) -> Trace:
    """Run a network on one image and record its operations.

    Parameters
    ----------
    path : WeightPath
        The line; the tensors have its keys.
    module : nn.Module
        The baseline or the target.
    tensors : mapping of str to Tensor
        Values of its parameters and buffers for this run; copied.
    x : Tensor
        One image [1, C, *spatial].
    functional : bool
        Record a functional operation in place of every write; composed operations are then
        recorded as their parts.

    Raises
    ------
    NeedsFunctional
        If the network writes on a tensor that others see and `functional` is False.
    NotCaptured
        If the computation depends on values, draws random numbers, or may have gradients that no
        operation shows.
    """
    # Copies, since autograd forbids a network to write on leaves.
    given = {key: value.clone() for key, value in tensors.items()}
    image = x.clone().requires_grad_().clone()
    made = Trace([*given, IMAGE])
    recorder: Any = (_FunctionalRecorder if functional else _ComposedRecorder)(made)
    for key, value in zip(made.keys, (*given.values(), image), strict=True):
        recorder.take(key, value)
    if functional:
        with _refusing():
            module = copy_of(module)  # the copy holds any cache of this run's tensors

    def forward(*values: Tensor) -> Any:
        *parts, last = values
        return path.evaluate(dict(zip(given, parts, strict=True)), last, module=module)

    without_saving = saved_tensors_hooks(lambda value: None, lambda value: value)
    dispatcher = nullcontext() if functional else enable_python_dispatcher()
    run = functionalize(forward) if functional else forward
    with (
        _refusing(),
        without_saving,
        filled_memory(),
        as_ordinary_code() as functions,
        _Watch(recorder, [*given.values(), image], functional) as watch,
        dispatcher,
        recorder,
    ):
        output = run(*given.values(), image)
    if names := own_gradients(functions):
        raise NotCaptured(f"{', '.join(names)} may have a gradient of its own")
    if watch.hooks:
        raise NotCaptured("a hook may change its gradients")
    made.graph.output(_map_tensors(output, recorder.node))
    made.output = _map_tensors(output, Tensor.detach)
    made.calls = watch.digest()
    made.digest = hashlib.sha256("\n".join(recorder.steps).encode()).hexdigest()
    return made


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn an error of the network's own code into `NotCaptured` with its message."""
    try:
        yield
    except (torch.OutOfMemoryError, NeedsFunctional, NotCaptured):
        raise
    except Exception as problem:
        cause = problem.__cause__ or problem
        if isinstance(cause, NeedsFunctional | NotCaptured):
            raise cause from None
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise NotCaptured(f"{type(cause).__name__}: {reason[:200]}") from problem


# How Python code reads a value, in the words of the code.
_READ_BY: dict[Any, str] = {
    aten.item.default: ".item() of a value",
    aten._local_scalar_dense.default: ".item() of a value",
    aten.is_nonzero.default: "a branch on a value",
    aten.index.Tensor: "an index by a mask of values",
}


class _StepRecorder:
    """Records the operations of one trace; the shared part of two dispatch modes."""

    def begin(self, trace: Trace) -> None:
        self.trace = trace
        self.nodes: Any = WeakIdKeyDictionary()  # by their results
        self.constants: dict[tuple[int, int], tuple[Tensor, fx.Node]] = {}
        self.steps: list[str] = []

    def take(self, key: str, value: Tensor) -> None:
        """Record an input."""
        node = self.trace.graph.placeholder(f"input_{key.replace('.', '_')}")
        self.steps.append(key if key == IMAGE else f"{key} {[*value.shape]}")
        self._keep(node, value)

    def node(self, value: Tensor) -> fx.Node:
        """Give the node of a tensor; a tensor that depends on no input becomes a constant."""
        node = self.nodes.get(value)
        if node is not None:
            return node
        key = id(value), value._version
        if key not in self.constants:
            copy, name = value.detach().clone(), f"constant_{len(self.constants)}"
            self.steps.append(f"{name} {content_name(copy)}")
            setattr(self.trace.root, name, copy)
            node = self.trace.graph.get_attr(name)
            self._describe(node, copy)
            self.constants[key] = value, node  # held, so that no other tensor gets its id
        return self.constants[key][1]

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation; record it if it depends on an input."""
        with no_python_dispatcher():
            effects = effects_of(func)
            if effects.random and draws(func, args, kwargs):
                raise NotCaptured(f"{func} draws random numbers")
            given = [value for value in _tensors((args, kwargs)) if value in self.nodes]
            if not given:
                return func(*args, **kwargs)
            if effects.by_values and self._depends_on_values(func, args):
                raise NotCaptured(f"data-dependent: {_READ_BY.get(func, func)}")
            if effects.writes and not (isinstance(args[0], Tensor) and args[0] in self.nodes):
                raise NeedsFunctional
            if torch.is_autocast_enabled(given[0].device.type):
                raise NotCaptured("it changes types by autocast")
            node_args, node_kwargs = (_map_tensors(part, self.node) for part in (args, kwargs))
            node = self.trace.graph.call_function(func, node_args, node_kwargs)
            same = [value.shape == given[0].shape for value in given[1:]]
            self.steps.append(f"{node} {func} {node_args} {node_kwargs} {same}")
            result = func(*args, **kwargs)
            self._record_result(node, result)
            return result

    def _depends_on_values(self, func: Any, args: Any) -> bool:
        """Whether the operation is no index, or an input decides a mask of the index."""
        if func is not aten.index.Tensor:
            return True
        masks = (value for value in args[1] if value is not None and value.dtype in _MASKS)
        return any(mask in self.nodes for mask in masks)

    def _record_result(self, node: fx.Node, result: Any) -> None:
        """Record the result of an operation; detach it where gradients are disabled."""
        if isinstance(result, tuple | list):
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._record_result(self._call(operator.getitem, node, place), part)
        elif isinstance(result, Tensor):
            self._keep(node, result)
            if not torch.is_grad_enabled():
                self._keep(self._call(aten.detach.default, node), result)

    def _call(self, target: Any, *args: Any) -> fx.Node:
        node = self.trace.graph.call_function(target, args)
        self.steps.append(f"{node} {target} {args}")
        return node

    def _keep(self, node: fx.Node, value: Tensor) -> None:
        self.nodes[value] = node
        self._describe(node, value)

    def _describe(self, node: fx.Node, value: Tensor) -> None:
        shape, dtype = value.shape, value.dtype
        # Sizes of 1 decide how a tensor is broadcast.
        self.steps.append(f"{dtype}{''.join('1' if side == 1 else 'n' for side in shape)}")
        node.meta["val"] = _without_data(shape, dtype)
        node.meta["place"] = len(self.trace.sizes)
        self.trace.sizes.append(shape.numel() * dtype.itemsize)


@lru_cache(1 << 12)
def _without_data(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Make a tensor without data, one for all values of a shape: a trace makes thousands."""
    return torch.empty(shape, dtype=dtype, device="meta")


class _ComposedRecorder(_StepRecorder, ProxyTorchDispatchMode):
    """Records operations before torch decomposes them: a linear layer is one, not three."""

    def __init__(self, trace: Trace) -> None:
        # Not the `__init__` of `ProxyTorchDispatchMode`, which imports a compiler.
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.enter_stack: list[Any] = []
        self.begin(trace)


class _FunctionalRecorder(_StepRecorder, TorchDispatchMode):
    """Records operations after `functionalize`, which turns writes on views into operations."""

    def __init__(self, trace: Trace) -> None:
        TorchDispatchMode.__init__(self)
        self.begin(trace)


def _dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    return self.run(func, args, kwargs or {})


# Set afterwards: torch wraps a method of the class body in an import of the compiler.
_ComposedRecorder.__torch_dispatch__ = _dispatch  # type: ignore[method-assign]
_FunctionalRecorder.__torch_dispatch__ = _dispatch  # type: ignore[method-assign]


class _Watch(CallRecorder):
    """Notices hooks on gradients, also of modules, and values that Python reads."""

    def __init__(self, recorder: _StepRecorder, inputs: list[Tensor], functional: bool) -> None:
        super().__init__(inputs)
        self.recorder = recorder
        self.functional = functional
        self.hooks = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.hooks |= func in _HOOKING
        if replacement := replacement_of(func, args, self._node):
            if not self.functional:
                raise NeedsFunctional
            return replacement()
        if func in _READING and args[0] in self.recorder.nodes:
            raise NotCaptured(f"data-dependent: {getattr(func, '__name__', func)} of a value")
        if func is _DATA and args[0] in self.recorder.nodes:
            func = Tensor.detach  # equal, and the recorder sees it
        return super().__torch_function__(func, types, args, kwargs)

    def _node(self, value: Tensor) -> fx.Node | None:
        """Node of a value, which `functionalize` wraps."""
        if torch._is_functional_tensor(value):
            torch._sync(value)
            value = torch._from_functional_tensor(value)
        return self.recorder.nodes.get(value)


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in arguments, nested in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def _map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Change the tensors in arguments or in an output, which may have named tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(part, change) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _map_tensors(part, change) for key, part in value.items()}
    return value
