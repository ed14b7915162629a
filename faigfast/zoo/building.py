"""Networks made of checkpoints: the zoo's, spandrel's, or copies of the user's own."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from faigfast.models.state import check_same_layout, copy_of, tensors, unwrap
from faigfast.zoo import FAMILIES, infer_network
from faigfast.zoo.blocks import is_computed
from faigfast.zoo.checkpoint_limits import check_size, outline, with_memory
from faigfast.zoo.checkpoint_source import Checkpoint, Source
from faigfast.zoo.entries import ENTRIES
from faigfast.zoo.forms import form_of
from faigfast.zoo.name_prefixes import likely_prefixes, wrapper_prefix
from faigfast.zoo.spandrel import spandrel_network
from faigfast.zoo.weight_types import of_one_type

log = logging.getLogger("faigfast")


@dataclass(frozen=True)
class Fitted:
    """A network that fits a checkpoint, and the weights for it.

    Attributes
    ----------
    network : nn.Module
        The network; of the zoo without memory.
    state : dict of str to Tensor
        The weights, by the network's names; empty if the network has them already.
    source : Source
        Their origin.
    place : str
        Name of the file for messages.
    whose : str
        Name of the network for messages.
    has_sizes : bool
        Whether the file has tensors that the network computes, such as masks.
    """

    network: nn.Module
    state: dict[str, Tensor]
    source: Source
    place: str
    whose: str
    has_sizes: bool = False

    @property
    def layout(self) -> dict[str, Tensor]:
        """Tensors that a pair's networks must share, except the tensors that they compute."""
        state = self.state or tensors(self.network)
        return _not_computed(state, computed_names(self.network))


def computed_names(network: nn.Module) -> tuple[str, ...]:
    """Give the ends of the names of tensors that a network of the zoo computes itself."""
    return getattr(network, "computed", ()) if isinstance(network, FAMILIES) else ()


def fit(checkpoint: Checkpoint, into: nn.Module | None, dtype: torch.dtype | None) -> Fitted:
    """Find the network of a checkpoint: a copy of `into`, of the zoo, or of spandrel.

    Raises
    ------
    TypeError
        If `into` is not a module or is a scripted one.
    ValueError
        If no network fits, or names or shapes differ from `into`.
    """
    try:
        state, remark = of_one_type(checkpoint.state, dtype)
    except ValueError as refusal:
        raise ValueError(f"{checkpoint.source}: {refusal}") from None
    source = replace(checkpoint.source, remarks=(remark,) if remark else ())
    checkpoint = replace(checkpoint, state=state, source=source)
    if into is not None:
        return _fit_own(checkpoint, unwrap(into, "into"))
    if checkpoint.network is not None:
        network = checkpoint.network if dtype is None else checkpoint.network.to(dtype)
        return Fitted(network, {}, source, checkpoint.place, "the ncnn network")
    try:
        check_size(state, checkpoint.size)
        fitted, problem = _first_fit(checkpoint, _fit_zoo)
    except ValueError as error:
        raise ValueError(f"{checkpoint.place}: {error}") from None
    if fitted is not None:
        return fitted
    try:
        fitted, other = _first_fit(checkpoint, _fit_spandrel)
    except ValueError as error:
        raise ValueError(f"{checkpoint.place}: {problem}; {error}") from error
    if fitted is None:
        hint = _hint(state)
        raise ValueError(f"{checkpoint.place}: {problem}; {other}{hint}") from None
    return fitted


def fit_pair(first: Fitted, second: Fitted) -> tuple[Fitted, Fitted]:
    """Give both networks the sizes of one, if only tensors that they compute differ.

    Raises
    ------
    ValueError
        If the networks are not of one architecture.
    """
    places = f"the baseline {first.place}", f"the target {second.place}"
    check_same_layout(first.layout, second.layout, *places)
    computed = computed_names(first.network)
    if computed and first.state and second.state:
        model, other = (second, first) if second.has_sizes and not first.has_sizes else (
            first,
            second,
        )  # fmt: skip
        sizes = {k: v for k, v in model.state.items() if is_computed(k, computed)}
        network = copy.deepcopy(model.network)
        other = replace(other, network=network, state={**other.state, **sizes})
        return (model, other) if model is first else (other, model)
    return first, second


def with_weights(fitted: Fitted) -> nn.Module:
    """Put the weights into the network, in their own types."""
    network, state, place, whose = fitted.network, fitted.state, fitted.place, fitted.whose
    if state:
        network = with_memory(network)
        owners: dict[int, str] = {}
        for name, tensor in network.state_dict(keep_vars=True).items():
            if state[name].is_floating_point() != tensor.is_floating_point():
                raise ValueError(
                    f"{place} holds {name!r} of {state[name].dtype}; {whose} has {tensor.dtype}"
                )
            owner = owners.setdefault(id(tensor), name)
            if owner != name and not torch.equal(state[owner], state[name]):
                raise ValueError(
                    f"{place} holds two values for {owner!r} and {name!r}, one in {whose}"
                )
        network.zero_grad()
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            if name in state:  # load_state_dict keeps dtypes; the file's dtype is wanted
                tensor.data = tensor.data.to(state[name].dtype)
        network.load_state_dict(state)
    network.faigfast_source = fitted.source  # type: ignore[assignment]
    log.info("%s: %s", fitted.source.path or fitted.place, fitted.source.note)
    return network.eval()


def _first_fit(
    checkpoint: Checkpoint, attempt: Callable[[Checkpoint, dict[str, Tensor]], Fitted]
) -> tuple[Fitted | None, ValueError]:
    """Try the names with fewer and fewer prefixes; give the likeliest problem if none fits."""
    problems = []
    prefixes = likely_prefixes(checkpoint.state)
    for prefix in prefixes:
        state = {name[len(prefix) :]: value for name, value in checkpoint.state.items()}
        source = replace(checkpoint.source, prefix=checkpoint.source.prefix + prefix)
        try:
            return attempt(replace(checkpoint, source=source), state), ValueError()
        except ValueError as error:
            problems.append(error)
    # "model." is more often a name of the network itself.
    return None, problems[0 if prefixes[-1] == "model." else -1]


def _fit_zoo(checkpoint: Checkpoint, state: dict[str, Tensor]) -> Fitted:
    form, remarks = form_of(state), checkpoint.source.remarks
    if form is not None:
        state = form.read(state)
        remarks = (*remarks, f"read from {form.name}")
    network = outline(state, infer_network)
    whose, wanted = type(network).__name__, network.state_dict()
    computed = computed_names(network)
    own = _not_computed(state, computed)
    check_same_layout(_not_computed(wanted, computed), own, whose, checkpoint.place)
    for name in wanted.keys() - own.keys():
        own[name] = _of_type(wanted[name], own)
    own = {name: own[name] for name in wanted}
    source = replace(checkpoint.source, remarks=remarks)
    has_sizes = any(is_computed(name, computed) for name in state)
    return Fitted(network, own, source, checkpoint.place, whose, has_sizes)


def _fit_spandrel(checkpoint: Checkpoint, state: dict[str, Tensor]) -> Fitted:
    network = spandrel_network(state, checkpoint.size)
    whose = type(network).__name__
    return Fitted(network, {}, checkpoint.source, checkpoint.place, whose)


def _fit_own(checkpoint: Checkpoint, into: nn.Module) -> Fitted:
    """Fit the names of a copy of the user's network, with the prefix that fits best."""
    network = copy_of(into)
    wanted = state_of(network, "`into`")
    own_prefix = wrapper_prefix(wanted)
    bare = {name[len(own_prefix) :] for name in wanted}
    prefix = closest_prefix(checkpoint.state, bare)
    state = {own_prefix + k[len(prefix) :]: v for k, v in checkpoint.state.items()}
    computed = computed_names(network)
    check_same_layout(
        _not_computed(wanted, computed), _not_computed(state, computed), "`into`", checkpoint.place
    )
    state = {name: v for name, v in state.items() if not is_computed(name, computed)}
    state |= {k: _of_type(wanted[k], state) for k in wanted if is_computed(k, computed)}
    source = replace(checkpoint.source, prefix=checkpoint.source.prefix + prefix)
    return Fitted(network, state, source, checkpoint.place, "`into`")


def closest_prefix(state: Mapping[str, Tensor], wanted: set[str]) -> str:
    """Give the prefix without which a state dict shares most names with a network."""

    def shared(prefix: str) -> int:
        return sum(name[len(prefix) :] in wanted for name in state)

    return max(likely_prefixes(state), key=shared)


def state_of(network: nn.Module, whose: str) -> dict[str, Tensor]:
    """Give the state dict of a network; refuse entries that are not tensors."""
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{whose} holds {name!r}, a {type(value).__name__}; expected tensors")
    return state


def _not_computed(state: Mapping[str, Tensor], computed: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not is_computed(name, computed)}


def _of_type(value: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Convert a floating-point tensor to the type of a network's weights."""
    types = (v.dtype for v in state.values() if v.is_floating_point())
    return value.to(next(types, value.dtype)) if value.is_floating_point() else value


def _hint(state: Mapping[str, Tensor]) -> str:
    """Name parts of a state dict that may be networks of their own."""
    heads = dict.fromkeys(name.partition(".")[0] for name in state)
    parts = [head for head in heads if head in ENTRIES]
    if not parts or len(heads) == 1:
        return ""
    return f"; its names begin with {', '.join(heads)}: choose a part by `key`, such as {parts[0]}"
