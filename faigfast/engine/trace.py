"""Trace: run a network once as it is and write down what it computed.

Every operation runs on real tensors; what depends on the network's tensors or the image becomes a
step, the rest (tables, masks, index maps) a constant. The digest of the steps names the
computation: two networks, or two sizes of an image, with one digest share one graph.
"""

import hashlib
import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from faigfast.networks import copy_of
from faigfast.path import WeightPath

aten = torch.ops.aten

IMAGE = "image"  # the key of the image among the inputs

# A hook may change a gradient, and a node of autograd is asked for to put one there.
_HOOKING = (Tensor.register_hook, Tensor.grad_fn.__get__)  # type: ignore[union-attr]
# These hand values to Python, or take them from it, past torch's dispatcher.
_READING: frozenset[Any] = frozenset(
    getattr(Tensor, name)
    for name in (
        "numpy", "tolist", "__array__", "__deepcopy__", "__dlpack__", "data_ptr", "untyped_storage",
    )
) | {Tensor.data.__set__}  # type: ignore[attr-defined]  # fmt: skip
_MASKS = (torch.bool, torch.uint8)
# These give Python what follows from shapes and types alone.
_OF_SHAPES = {
    f"aten::{name}"
    for name in (
        "dim", "is_complex", "is_floating_point", "is_same_size", "is_signed", "numel", "size",
        "storage_offset", "stride",
    )
}  # fmt: skip


class NotCaptured(Exception):
    """The network cannot be written as one graph; the message says why."""


class Aliased(Exception):
    """A network writes on a tensor that others see, which only functional operations show."""


class Ref(NamedTuple):
    """A value among those of a trace."""

    place: int

    def __repr__(self) -> str:
        """Short, since digests are made of it."""
        return f"%{self.place}"


@dataclass(frozen=True)
class Step:
    """One operation.

    Parameters
    ----------
    target : OpOverload
        The operation.
    args, kwargs
        With `Ref` for tensors.
    results : list of int
        Places of its results among the values, in order; -1 of what is no tensor.
    several : bool
        Whether it gives a sequence.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[int]
    several: bool


@dataclass(eq=False)
class Trace:
    """What a network computed for one image.

    Attributes
    ----------
    keys : list of str
        Names of the inputs, the image's last; they are the first values.
    values : list of (torch.Size, torch.dtype)
        Shape and type of every value, of inputs first.
    constants : dict of int to Tensor
        By place among the values.
    steps : list of Step
        In order.
    output : any
        What the network gives, with `Ref` for tensors.
    found : any
        What it gave.
    """

    keys: list[str]
    values: list[tuple[torch.Size, torch.dtype]] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    output: Any = None
    found: Any = None
    digest: str = ""

    @property
    def writes(self) -> bool:
        """Whether an operation writes on what it is given."""
        return any(step.target._schema.is_mutable for step in self.steps)

    def sizes(self) -> list[int]:
        """Bytes of every value."""
        return [shape.numel() * dtype.itemsize for shape, dtype in self.values]

    def graph(self) -> fx.GraphModule:
        """Write the steps as a graph: placeholders are the inputs, `meta` has shapes and places."""
        graph, root = fx.Graph(), nn.Module()
        nodes: dict[int, fx.Node] = {}

        def place(node: fx.Node, number: int) -> None:
            shape, dtype = self.values[number]
            node.meta |= {"val": torch.empty(shape, dtype=dtype, device="meta"), "place": number}
            nodes[number] = node

        for number, key in enumerate(self.keys):
            place(graph.placeholder(f"input_{number}_{key.replace('.', '_')}"), number)
        for number, value in self.constants.items():
            setattr(root, f"constant_{number}", value)
            place(graph.get_attr(f"constant_{number}"), number)
        for step in self.steps:
            args, kwargs = _map((step.args, step.kwargs), lambda ref: nodes[ref.place])
            node = graph.call_function(step.target, args, kwargs)
            if not step.several:
                place(node, step.results[0])
                continue
            for i, number in enumerate(step.results):
                if number >= 0:
                    place(graph.call_function(operator.getitem, (node, i)), number)
            node.meta["val"] = [nodes[n].meta["val"] for n in step.results if n >= 0]
        graph.output(_map(self.output, lambda ref: nodes[ref.place]))
        return fx.GraphModule(root, graph)


def trace(
    path: WeightPath,
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    functional: bool = False,
) -> Trace:
    """Run a network on one image and write down what it computes.

    Parameters
    ----------
    path : WeightPath
        The line, whose keys the tensors have.
    module : nn.Module
        The baseline or the target.
    tensors : mapping of str to Tensor
        What its parameters and buffers hold meanwhile; they are copied.
    x : Tensor
        One image [1, C, *spatial].
    functional : bool
        Write down what follows from every write as an operation of its own, at the price of
        composed operations.

    Raises
    ------
    Aliased
        If the network writes on a tensor that others see and `functional` is False.
    NotCaptured
        If the computation depends on values, draws random numbers, or may have gradients that no
        operation tells of.
    """
    # Copies, since a network may write on its tensors, which leaves of autograd do not allow.
    given = {key: value.clone() for key, value in tensors.items()}
    image = x.clone().requires_grad_().clone()
    made = Trace([*given, IMAGE])
    recorder: Any = (_AfterWrites if functional else _Recorder)(made)
    for value in (*given.values(), image):
        recorder.register(value)
    if functional:
        module = copy_of(module)  # what it keeps of the tensors that it sees goes with the copy

    def forward(*values: Tensor) -> Any:
        *parts, last = values
        return path.evaluate(dict(zip(given, parts, strict=True)), last, module=module)

    nothing = saved_tensors_hooks(lambda value: None, lambda value: value)  # kept for a backward
    before = nullcontext() if functional else enable_python_dispatcher()
    run = functionalize(forward) if functional else forward
    with (
        _refusing(),
        nothing,
        _own_functions() as functions,
        _Watch(recorder) as watch,
        before,
        recorder,
    ):
        found = run(*given.values(), image)
    if functions:
        raise NotCaptured(f"{', '.join(functions)} may have a gradient of its own")
    if watch.hooks:
        raise NotCaptured("a hook may change its gradients")
    made.output = _map_tensors(found, recorder.refer)
    made.found = _map_tensors(found, Tensor.detach)
    made.digest = recorder.digest()
    return made


@contextmanager
def _refusing() -> Iterator[None]:
    """Make any error of the network's own code the reason why it is not captured."""
    try:
        yield
    except (torch.OutOfMemoryError, Aliased, NotCaptured):
        raise
    except Exception as problem:
        cause = problem.__cause__ or problem
        if isinstance(cause, Aliased | NotCaptured):
            raise cause from None
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise NotCaptured(f"{type(cause).__name__}: {reason[:200]}") from problem


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


class _Notes:
    """Writes the steps of one trace down; what two kinds of modes share."""

    trace: Trace

    def begin(self, trace: Trace) -> None:
        self.trace = trace
        self.places: Any = WeakIdKeyDictionary()
        self.known: dict[tuple[int, int], tuple[Tensor, int]] = {}
        self.lines: list[str] = []

    def register(self, value: Tensor) -> int:
        """Give a value its place."""
        place = len(self.trace.values)
        self.trace.values.append((value.shape, value.dtype))
        self.places[value] = place
        return place

    def refer(self, value: Tensor) -> Ref:
        """Give a tensor's place; one that follows from no input is a constant."""
        place = self.places.get(value)
        if place is None:
            key = id(value), value._version
            if key not in self.known:
                copy = value.detach().clone()
                place = len(self.trace.values)
                self.trace.values.append((copy.shape, copy.dtype))
                self.trace.constants[place] = copy
                self.known[key] = value, place  # held, so that no other takes its id
                self.lines.append(f"{copy.dtype}{[*copy.shape]}{_hash(copy)}")
            place = self.known[key][1]
        return Ref(place)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and write it down if it depends on an input."""
        with no_python_dispatcher():
            kind = _kind(func)
            if kind.random and draws(func, args, kwargs):
                raise NotCaptured(f"{func} draws random numbers")
            given = [value for value in _tensors((args, kwargs)) if value in self.places]
            if not given:
                return func(*args, **kwargs)
            if kind.by_values and self._depends_on_values(func, args):
                raise NotCaptured(f"data-dependent operation: {func}")
            if kind.writes and not (args and _among(args[0], self.places)):
                raise Aliased
            if torch.is_autocast_enabled(given[0].device.type):
                raise NotCaptured("it changes types by autocast")
            taken, named = (_map_tensors(part, self.refer) for part in (args, kwargs))
            same = [value.shape == given[0].shape for value in given[1:]]
            found = func(*args, **kwargs)
            self.lines.append(f"{func}{taken}{named}{same}")
            self._write(func, taken, named, found)
            return found

    def _depends_on_values(self, func: Any, args: Any) -> bool:
        """Whether a mask that follows from an input decides the shape of an index's result."""
        if func is not aten.index.Tensor:
            return True
        masks = (value for value in args[1] if value is not None and value.dtype in _MASKS)
        return any(mask in self.places for mask in masks)

    def _write(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        several = isinstance(found, tuple | list)
        parts = list(found) if several else [found]
        results = [self.register(v) if isinstance(v, Tensor) else -1 for v in parts]
        if all(place < 0 for place in results):
            return
        for value, place in zip(parts, results, strict=True):
            if place >= 0:
                self.lines.append(_pattern(value.shape, value.dtype))
        self.trace.steps.append(Step(func, args, kwargs, results, several))
        if not torch.is_grad_enabled():
            for value, place in zip(parts, results, strict=True):
                if place >= 0:
                    shut = self.register(value)
                    step = Step(aten.detach.default, (Ref(place),), {}, [shut], False)
                    self.trace.steps.append(step)
                    self.lines.append("detach")

    def digest(self) -> str:
        """Name the computation: operations, what they take, and which sizes are 1 or equal."""
        inputs = (
            f"{key} {dtype} {_pattern(shape, dtype) if key == IMAGE else [*shape]}"
            for key, (shape, dtype) in zip(self.trace.keys, self.trace.values, strict=False)
        )
        text = "\n".join([*inputs, *self.lines, repr(self.trace.output)])
        return hashlib.sha256(text.encode()).hexdigest()


class _Recorder(_Notes, ProxyTorchDispatchMode):
    """Sees operations before torch takes them apart: a linear layer as one, not as three."""

    def __init__(self, trace: Trace) -> None:
        # Not the mode's own, which imports a compiler that is not needed.
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.enter_stack: list[Any] = []
        self.begin(trace)


class _AfterWrites(_Notes, TorchDispatchMode):
    """Sees operations after `functionalize`, where writes on views are operations of their own."""

    def __init__(self, trace: Trace) -> None:
        TorchDispatchMode.__init__(self)
        self.begin(trace)


def _dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    return self.run(func, args, kwargs or {})


# Put there afterwards: what a class body defines is wrapped in an import of the compiler.
_Recorder.__torch_dispatch__ = _dispatch  # type: ignore[method-assign]
_AfterWrites.__torch_dispatch__ = _dispatch  # type: ignore[method-assign]


class _Watch(TorchFunctionMode):
    """Notices hooks on gradients, those of modules included, and values that Python reads."""

    def __init__(self, recorder: _Notes) -> None:
        super().__init__()
        self.recorder = recorder
        self.hooks = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.hooks |= func in _HOOKING
        if func in _READING and args[0] in self.recorder.places:
            raise NotCaptured(f"data-dependent: {getattr(func, '__name__', func)} of a value")
        if func is _DATA and args[0] in self.recorder.places:
            return args[0].detach()
        return func(*args, **(kwargs or {}))


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


class _Kind(NamedTuple):
    """What an operation may do beside computing tensors."""

    random: bool
    writes: bool
    by_values: bool  # Python, or the shape of the result, may follow from values


@cache
def _kind(func: Any) -> _Kind:
    numbers = any("Tensor" not in str(part.type) for part in func._schema.returns)
    return _Kind(
        torch.Tag.nondeterministic_seeded in func.tags,
        func._schema.is_mutable,
        torch.Tag.dynamic_output_shape in func.tags
        or (numbers and func._schema.name not in _OF_SHAPES),
    )


def draws(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that may draw random numbers does so with these arguments."""
    # Dropout and attention are marked so even where they drop nothing.
    given = {argument.name: argument.default_value for argument in func._schema.arguments}
    given |= dict(zip(given, args, strict=False)) | dict(kwargs)
    if "dropout_p" in given:
        return bool(given["dropout_p"])
    return given.get("train", given.get("training")) is not False


def _among(value: Any, places: Any) -> bool:
    return isinstance(value, Tensor) and value in places


def _pattern(shape: torch.Size, dtype: torch.dtype) -> str:
    """Tell of a shape what decides how it is broadcast."""
    return f"{dtype}{''.join('1' if side == 1 else 'n' for side in shape)}"


def _hash(value: Tensor) -> str:
    octets = value.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(octets.data).hexdigest()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in arguments, which are nested in lists, tuples and dicts alone."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def _map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    return _nested(value, lambda part: _map_tensors(part, change))


def _map(value: Any, change: Callable[[Ref], Any]) -> Any:
    if isinstance(value, Ref):
        return change(value)
    return _nested(value, lambda part: _map(part, change))


def _nested(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if isinstance(value, list | tuple):
        return type(value)(map(change, value))
    if isinstance(value, dict):
        return {key: change(part) for key, part in value.items()}
    return value
