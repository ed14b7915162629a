"""The straight line between two networks' tensors: γ(α) = θ̄ + α(θ − θ̄)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from faigfast.integration.writes import recorded_writes
from faigfast.models.packing import arguments_of
from faigfast.models.state import (
    all_finite,
    blaming,
    blaming_networks,
    check_same_layout,
    identity,
    slots,
    tensors,
)

_CONVOLUTIONS = (
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)
_FUNCTIONAL = ("x", "mean", "variance", "weight", "bias", "from_input", "momentum", "eps")
_NATIVE = ("x", "weight", "bias", "mean", "variance", "from_input", "momentum", "eps")
# Arguments of the norms, in order; `from_input`: normalise by the statistics of the input.
_NORMS = {
    F.batch_norm: _FUNCTIONAL,
    F.instance_norm: _FUNCTIONAL,
    torch.batch_norm: _NATIVE,
    torch.instance_norm: _NATIVE,
}
_ALIASES = {
    "input": "x",
    "running_mean": "mean",
    "running_var": "variance",
    "training": "from_input",
    "use_input_stats": "from_input",
}


class _NormsWrittenOut(TorchFunctionMode):
    """Replaces batch and instance norm where torch has no gradient for them, or a wrong one.

    It also refuses x of one axis too few: a convolution would take its images for channels.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NORMS:
            given = dict(zip(_NORMS[func], args, strict=False))
            given |= {_ALIASES.get(name, name): value for name, value in kwargs.items()}
            moves = any(
                isinstance(given.get(name), Tensor) and given[name].requires_grad
                for name in ("mean", "variance")
            )
            from_input = given.get("from_input", func is F.instance_norm)
            if moves and not from_input:
                return _normalise(given)
            if from_input and func in (F.instance_norm, torch.instance_norm):
                return _normalise_channels(given)
        convolution = func in _CONVOLUTIONS and len(args) > 1
        if convolution and args[0].ndim == self.x.ndim == args[1].ndim - 1:
            raise ValueError(
                f"x is of rank {self.x.ndim} and reaches a convolution that takes rank "
                f"{args[1].ndim}; expected [N, C, *spatial] of the rank the network takes"
            )
        return func(*args, **kwargs)


def _normalise_channels(given: dict[str, Any]) -> Tensor:
    """Instance norm as group norm: torch 2.13 has a wrong gradient for one image."""
    x: Tensor = given["x"]
    affine = given.get("weight"), given.get("bias"), given.get("eps", 1e-5)
    # Flat, since group norm loses digits in channels-last tensors.
    y = F.group_norm(x.flatten(2), x.shape[1], *affine)
    return torch.ops.aten._unsafe_view(y, x.shape)  # the network may write on it


def _normalise(given: dict[str, Any]) -> Tensor:
    """Normalise by statistics on the line, for which torch has no gradient."""
    x: Tensor = given["x"]
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale = (given["variance"] + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    y = (x - given["mean"].view(shape)) * scale.view(shape)
    return y if given.get("bias") is None else y + given["bias"].view(shape)


class WeightPath:
    """Every parameter and floating-point buffer of two networks, on the line between them.

    Parameters
    ----------
    baseline, target : nn.Module
        Two networks of one architecture, unwrapped; calls run the target's code. Tensors
        of other types, and buffers outside the state dict, are the target's.
    dtype : torch.dtype, optional
        Type of γ; None keeps the type of each tensor.

    Attributes
    ----------
    module : nn.Module
        The target.
    start, end : dict of str to Tensor
        θ̄ and θ, by state-dict key; a tensor of several keys is listed under the first.
    delta : dict of str to Tensor
        θ − θ̄, of the tensors that move.
    fixed : dict of str to Tensor
        Tensors that are not interpolated.
    shared : dict of str to str
        From the other keys of a tensor to its first.
    written : frozenset of str, optional
        Tensors that the network writes to in a forward; None before the first.

    Raises
    ------
    ValueError
        If the networks are of different architectures, dtypes or devices, hold complex or
        non-finite tensors, share tensors differently, or are equal.
    """

    def __init__(
        self, baseline: nn.Module, target: nn.Module, dtype: torch.dtype | None = None
    ) -> None:
        first, last = tensors(baseline), tensors(target)
        check_same_layout(first, last)
        self.module = target
        self.delta: dict[str, Tensor] = {}
        self.fixed: dict[str, Tensor] = {}
        self.shared: dict[str, str] = {}
        self.written: frozenset[str] | None = None
        self._places = frozenset(slots(target))
        keys: dict[tuple[Any, ...], str] = {}
        on_line: list[str] = []
        for key, value in last.items():
            _check_kind(key, first[key], value)
            owner = keys.setdefault(identity(value), key) if value.numel() else key
            if owner != key:
                if not torch.equal(first[key], first[owner]):
                    raise ValueError(
                        f"{key!r} and {owner!r} are one tensor in the target and two in the "
                        "baseline; expected two networks of one architecture"
                    )
                self.shared[key] = owner
                continue
            if value.is_floating_point():
                on_line.append(key)
            else:
                self.fixed[key] = value
        with torch.no_grad():
            self.start = _copies(first, on_line, dtype, "baseline")
            self.end = _copies(last, on_line, dtype, "target")
            for key, start in self.start.items():
                if not torch.equal(start, self.end[key]):
                    self.delta[key] = self.end[key] - start
        if not self.delta:
            raise ValueError("baseline and target have identical weights: nothing to attribute")
        for key, value in target.named_buffers():
            if key not in last:
                cast = dtype if value.is_floating_point() else None
                self.fixed[key] = value.detach().to(cast or value.dtype)

    def at(self, alpha: float) -> dict[str, Tensor]:
        """Give γ(α) by state-dict key; moving tensors are new leaves that require gradients."""
        point = {}
        for key, start in self.start.items():
            if key in self.delta:
                # lerp gives both ends to the last bit, which θ̄ + 1·Δ does not.
                value = torch.lerp(start, self.end[key], alpha).requires_grad_()
                point[key] = value
            else:
                point[key] = start
        return point

    def call(
        self, point: dict[str, Tensor], x: Tensor, then: Callable[[Any], Any] = lambda y: y
    ) -> Any:
        """Evaluate the network at a point of the line.

        Parameters
        ----------
        point : dict of str to Tensor
            From `at`.
        x : Tensor
            [B, C, *spatial].
        then : callable
            Takes the network's output while the point's tensors are still in place: a
            network with checkpointing needs them in backward too.

        Returns
        -------
        The result of `then`.

        Raises
        ------
        ValueError
            If the network or `then` fails on x.
        """
        # Copies, since a network may write on its buffers or its input.
        given = {key: value.clone() for key, value in {**self.fixed, **point}.items()}
        # Checkpointed parts have gradients only if their input has one.
        x = x.clone().requires_grad_(torch.is_grad_enabled()).clone()
        return self.evaluate(given, x, then)

    def evaluate(
        self,
        given: dict[str, Tensor],
        x: Tensor,
        then: Callable[[Any], Any] = lambda y: y,
        module: nn.Module | None = None,
    ) -> Any:
        """As `call`, on tensors that the network may overwrite.

        Parameters
        ----------
        given : dict of str to Tensor
            A point of the line and the fixed tensors, by the first key of each.
        module : nn.Module, optional
            The network to run in place of the target.
        """
        places = given | {key: given[owner] for key, owner in self.shared.items()}
        places = {f"module.{key}": value for key, value in places.items() if key in self._places}
        with _NormsWrittenOut(x), self._writes_recorded(given):
            return functional_call(
                NetworkThen(module or self.module), places, (x, then), tie_weights=False
            )

    @contextmanager
    def _writes_recorded(self, given: dict[str, Tensor]) -> Iterator[None]:
        """Record in `written` what the first forward writes to, unless it is being traced."""
        if self.written is not None or _get_current_dispatch_mode_stack():
            yield
            return
        written: set[str] = set()
        with recorded_writes(given, written):
            yield
        self.written = frozenset(written)


class NetworkThen(nn.Module):
    """A network followed by a function of its output.

    Parameters
    ----------
    module : nn.Module
        The network.

    Raises
    ------
    ValueError
        In calls on which the network or the function fails.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, then: Callable[[Any], Any]) -> Any:
        """Give the result of `then`; x may carry further inputs, see `faigfast.models.packing`."""
        x, others, by_name = arguments_of(x)
        with blaming_networks(x):
            output = self.module(x, *others, **by_name)
        with blaming("the gradient cannot be taken", RuntimeError):
            return then(output)


def _copies(
    values: dict[str, Tensor], keys: list[str], dtype: torch.dtype | None, name: str
) -> dict[str, Tensor]:
    """Copy tensors and check that they are finite; one check for all of one type and device."""
    keys_by_kind: dict[Any, list[str]] = {}
    copies: dict[str, Tensor] = {}
    for key in keys:
        value = values[key].detach()
        if value.is_contiguous():
            keys_by_kind.setdefault((value.dtype, value.device), []).append(key)
        else:  # copied alone, to keep its layout
            _check_finite(values, [key], name)
            copies[key] = value.to(dtype or value.dtype, copy=True)
    for (kind, _), group_keys in keys_by_kind.items():
        group = [values[key].detach() for key in group_keys]
        flat = torch.cat([value.flatten().to(dtype or kind) for value in group])
        if not all_finite(flat):
            _check_finite(values, group_keys, name)
        parts = flat.split([value.numel() for value in group])
        copies |= {k: p.view(v.shape) for k, p, v in zip(group_keys, parts, group, strict=True)}
    return {key: copies[key] for key in keys}


def _check_finite(values: dict[str, Tensor], keys: list[str], name: str) -> None:
    for key in keys:
        if not all_finite(values[key]):
            raise ValueError(f"{key!r} of the {name} holds values that are not finite")


def _check_kind(key: str, first: Tensor, last: Tensor) -> None:
    if first.dtype != last.dtype or first.device != last.device:
        raise ValueError(
            f"{key!r} is {first.dtype} on {first.device} in the baseline and {last.dtype} on "
            f"{last.device} in the target; expected one dtype and one device"
        )
    if last.is_meta:
        raise ValueError(f"{key!r} is on meta, without values; expected loaded networks")
    if last.is_complex():
        raise ValueError(f"{key!r} is complex; expected real parameters and buffers")
