"""State of a network: its tensors, their identity, and calls that leave no trace on it."""

import copy
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from faigfast.backend.precision import proper_float32
from faigfast.io.regular_file import shortened
from faigfast.io.text_table import counted
from faigfast.models.generators import rewound
from faigfast.models.packing import arguments_of

# Of torch's error where a convolution gets an image with other channels.
WRONG_CHANNELS = re.compile(r"expected input\[(?P<shape>[\d, ]+)\] to have (?P<taken>\d+) channels")
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrap(model: nn.Module, name: str) -> nn.Module:
    """Take the user's own module out of its wrapper.

    The wrappers are DataParallel, DistributedDataParallel, AveragedModel, torch.compile and the
    descriptors of the package spandrel.

    Raises
    ------
    TypeError
        If `model` is not a module, or a scripted, traced or exported one.
    ValueError
        If it has lazy parameters.
    """
    model = _described(model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{name} is a {type(model).__name__}; expected a torch.nn.Module "
            "(faigfast.load_model reads one from a file)"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"{name} is a scripted module; expected the torch.nn.Module it came from")
    if "_parameters" not in vars(model):
        raise TypeError(f"{name} is a module whose __init__ was not called; expected one")
    if part := _exported_part(model):
        raise TypeError(
            f"{name} is or holds {part}, an exported module; expected the torch.nn.Module it came "
            "from"
        )
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError(f"{name} has parameters without a shape; run it once before")
    while isinstance(model, _WRAPPERS) or hasattr(model, "_orig_mod"):
        model = getattr(model, "module" if isinstance(model, _WRAPPERS) else "_orig_mod")
    for key, value in chain(model.named_parameters(), model.named_buffers()):
        if kind := unusual_kind(value):
            raise ValueError(f"{name} holds {key!r}, {kind}; expected dense tensors with values")
    return model


def _described(model: Any) -> Any:
    """Take the module out of a descriptor of spandrel; leave anything else."""
    kind: Any = getattr(sys.modules.get("spandrel"), "ModelBase", ())
    return model.model if isinstance(model, kind) else model


def _exported_part(model: nn.Module) -> str:
    """Name the first part of a module that torch.export made, which has no eval mode."""
    export = sys.modules.get("torch.export._unlift")
    kind = getattr(export, "_StatefulGraphModule", None)
    if kind is None:  # nothing was exported in this process
        return ""
    names = (name for name, part in model.named_modules() if isinstance(part, kind))
    return next((repr(name) if name else "a GraphModule" for name in names), "")


def unusual_kind(value: Tensor) -> str:
    """Name a kind of tensor that cannot be computed with here; "" for others."""
    if isinstance(value, FakeTensor):
        return "a fake tensor"
    if value.is_nested:
        return "a nested tensor"
    return "" if value.layout == torch.strided else f"a tensor of {value.layout}"


def refuse_transforms() -> None:
    """Refuse a call in which tensors are not what they seem.

    Raises
    ------
    ValueError
        Inside `torch.vmap`, `torch.func.grad` and the like, or a `FakeTensorMode`.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise ValueError("faigfast is called inside a transform of torch.func; expected it outside")
    if any(isinstance(mode, FakeTensorMode) for mode in _get_current_dispatch_mode_stack()):
        raise ValueError("faigfast is called inside a FakeTensorMode; expected it outside")


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of a module's state dict, detached, by key."""
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def own_type(model: nn.Module) -> torch.dtype:
    """Type of a network's first real parameter, and so of its images; float32 without one."""
    types = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(types, torch.float32)


def check_same_layout(
    baseline: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    in_baseline: str = "the baseline",
    in_target: str = "the target",
) -> None:
    """Refuse two state dicts that are not of one architecture.

    Parameters
    ----------
    baseline, target : mapping of str to Tensor
        State dicts without prefixes.
    in_baseline, in_target : str
        Names of the two in the message.

    Raises
    ------
    ValueError
        Naming the first tensor that only one has, or whose shape differs, with both shapes.
    """
    for key, value in target.items():
        if key not in baseline:
            raise _difference(key, value, in_target, in_baseline, target, baseline)
        if baseline[key].shape != value.shape:
            raise ValueError(
                f"the networks differ: {shortened(key)} is {list(baseline[key].shape)} in "
                f"{in_baseline} and {list(value.shape)} in {in_target}; expected two networks of "
                "one architecture"
            )
    for key, value in baseline.items():
        if key not in target:
            raise _difference(key, value, in_baseline, in_target, baseline, target)


def _difference(
    key: str,
    value: Tensor,
    owner: str,
    other: str,
    of_owner: Mapping[str, Tensor],
    of_other: Mapping[str, Tensor],
) -> ValueError:
    """Describe a tensor that only one network has; name the parts that hold a network's keys."""
    hint = ""
    pairs = ((owner, of_owner, of_other), (other, of_other, of_owner))
    for holder, holding, held in pairs:
        tail = f".{next(iter(held), '')}"
        parts = [name.removesuffix(tail) for name in holding if name.endswith(tail)]
        parts = [part for part in parts if all(f"{part}.{name}" in holding for name in held)]
        if held and parts:
            quoted = " and ".join(map(shortened, parts))
            hint = f" (it is part {quoted} of {holder}: pass that module)"
    return ValueError(
        f"the networks differ: {shortened(key)} {list(value.shape)} is in {owner} and not in "
        f"{other}; expected two networks of one architecture{hint}"
    )


def all_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither infinities nor NaN."""
    # The sum needs one pass, but can overflow: then check every value.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def slots(model: nn.Module) -> dict[str, Tensor]:
    """Give the parameters and buffers of every submodule; a shared submodule appears once."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, module in model.named_modules()
        for key, value in chain(module._parameters.items(), module._buffers.items())
        if value is not None
    }


def identity(value: Tensor) -> tuple[Any, ...]:
    """Identify a tensor: equal results mean one memory, shape and layout."""
    return value.data_ptr() or id(value), value.shape, value.stride()


def copy_of(model: nn.Module) -> nn.Module:
    """Copy a module deeply, with the tensors that its hooks computed."""
    # deepcopy refuses tensors with a gradient history; hooks such as weight norm's leave some.
    owners: list[Any] = list(model.modules())
    for module in list(owners):
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        owners += [hook.__self__ for hook in hooks if hasattr(hook, "__self__")]
    kept = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
    computed = [v for v in kept if isinstance(v, Tensor) and not v.is_leaf]
    with torch.inference_mode(False):
        return copy.deepcopy(model, {id(v): v.detach().clone() for v in computed})


@contextmanager
def as_out_of_memory() -> Iterator[None]:
    """Raise every failed allocation, also those of CPUs, as torch's error for it."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not _ran_out(problem) or isinstance(problem, torch.OutOfMemoryError):
            raise
        raise torch.OutOfMemoryError(_first_line(problem)) from problem


def _ran_out(problem: Exception) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(problem, kinds) or "can't allocate memory" in str(problem)


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]


@contextmanager
def blaming(what: str, kind: type[Exception]) -> Iterator[None]:
    """Turn an error of torch or the network into one sentence that begins with `what`."""
    try:
        with as_out_of_memory():
            yield
    except torch.OutOfMemoryError:
        raise
    except kind as problem:
        raise ValueError(f"{what}: {_first_line(problem)}") from problem


@contextmanager
def blaming_networks(x: Tensor) -> Iterator[None]:
    """Turn an error of a network that is called with x into one sentence."""
    with blaming(f"the networks do not take x {list(x.shape)} of {x.dtype}", Exception):
        try:
            yield
        except RuntimeError as problem:
            match = WRONG_CHANNELS.search(str(problem))
            if match is None or match["shape"] != ", ".join(map(str, x.shape)):
                raise
            taken = int(match["taken"])
            raise ValueError(
                f"the images have {counted(x.shape[1], 'channel')} and the networks take {taken}; "
                f"expected x of [N, {taken}, *spatial]"
            ) from problem
        except TypeError as problem:
            if "required positional argument" not in str(problem):
                raise
            raise TypeError(f"{problem}; expected a batch with 'inputs' for it") from problem


def call_as_is(model: nn.Module, x: Tensor) -> Any:
    """Evaluate a module on copies of its own tensors, since it may write on its buffers."""
    own = {key: value.clone() for key, value in slots(model).items()}
    x, others, by_name = arguments_of(x.clone())
    with blaming_networks(x):
        return functional_call(model, own, (x, *others), by_name, tie_weights=False)


def _is_same(place: dict[str, Any], kept: dict[str, Any]) -> bool:
    """Whether two dicts hold the same objects in the same order; `==` fails for tensors."""
    if len(place) != len(kept):
        return False
    return all(map(is_, place, kept)) and all(map(is_, place.values(), kept.values()))


def _on_cpu_by_default() -> AbstractContextManager[Any]:
    """Make tensors on the CPU where no device is named, whatever the caller's default."""
    if torch.get_default_device().type == "cpu":  # the usual case: a context slows every call
        return nullcontext()
    return torch.device("cpu")


def _uncompiled() -> AbstractContextManager[Any]:
    """Run what `torch.compile` or `Module.compile` wrapped as it was written."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def undisturbed(*models: nn.Module) -> Iterator[None]:
    """Evaluate models inside, with gradients and exact types, and restore them on leaving.

    Modes of all submodules, tensors they keep as attributes or buffers, and, unless other threads
    run, all random generators are restored on leaving; other attributes (a list, a number) are not.
    `no_grad`, `inference_mode`, autocast, TF32 and compilation by the caller have no effect inside.
    """
    modules = [module for model in models for module in model.modules()]
    modes = [module.training for module in modules]
    # Hooks such as weight norm's leave computed tensors on the module.
    scripted = torch.jit.ScriptModule  # its buffers are not a dict
    places = [vars(m) for m in modules]
    places += [m._buffers for m in modules if not isinstance(m, scripted)]
    copies = [(place, dict(place)) for place in places]
    own = [v for m in modules for v in vars(m).values() if isinstance(v, Tensor)]
    # Tensors of inference mode cannot be restored here.
    contents = [(v, v._version, v.detach().clone()) for v in own if not v.is_inference()]
    parameters = (p for m in modules for p in m._parameters.values() if p is not None)
    types = {parameter.device.type for parameter in parameters} - {"meta"}
    device = types.pop() if len(types) == 1 else "cpu"
    with (
        rewound(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
        proper_float32(),  # by default cuDNN convolves float32 in TF32
        _on_cpu_by_default(),
        _uncompiled(),
    ):
        try:
            for model in models:
                # Setting the mode of every module takes longer than reading it.
                if any(module.training for module in model.modules()):
                    model.eval()
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                if type(module).train is not nn.Module.train:  # it may also merge weights
                    module.train(mode)
            for module, mode in zip(modules, modes, strict=True):
                if module.training != mode:
                    module.training = mode
            for place, kept in copies:
                if _is_same(place, kept):
                    continue
                made = {key for key, value in place.items() if isinstance(value, Tensor)}
                for key in made - kept.keys():
                    del place[key]
                place.update((k, v) for k, v in kept.items() if k in made or isinstance(v, Tensor))
            for value, version, content in contents:
                if value._version != version:
                    value.data.copy_(content)


def equal_values(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks of one architecture have equal weights and buffers, on any devices."""
    start, now = tensors(one), tensors(other)
    return start.keys() == now.keys() and all(
        value.shape == now[key].shape and torch.equal(value.to(now[key].device), now[key])
        for key, value in start.items()
        if value.is_floating_point()
    )
