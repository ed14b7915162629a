"""What a call must leave as it was: networks, tensors, random generators and torch's modes."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
DENORMAL = 1e-310  # of float64; becomes 0 where denormal numbers are flushed


def modes() -> dict[str, Any]:
    """Give torch's modes in this thread and process."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "denormal numbers": DENORMAL * 0.5 != 0,
    }


def generators() -> dict[str, Any]:
    """Give the states of the random generators of torch, Python and NumPy."""
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "NumPy's generator": [np.asarray(part).tolist() for part in np.random.get_state()[1:]],
    }


def network_state(network: Any) -> dict[str, Any]:
    """Give modes, hooks, tensors, their identities, versions and gradients, by a name in words."""
    state: dict[str, Any] = {}
    plain = isinstance(network, nn.Module) and "training" in vars(network)
    if not plain or isinstance(network, torch.jit.ScriptModule):
        return state
    for name, module in network.named_modules():
        state[f"mode of {name!r}"] = module.training
        for kind in HOOKS:
            state[f"{kind} of {name!r}"] = list(getattr(module, kind))
        held = {**vars(module), **module._parameters, **module._buffers}
        state[f"names in {name!r}"] = sorted(vars(module))
        for key, value in held.items():
            if isinstance(value, Tensor):
                place = f"{name}.{key}".lstrip(".")
                state[f"identity of {place}"] = id(value)
                state[f"values of {place}"] = contents(value)
                state[f"requires_grad of {place}"] = value.requires_grad
                state[f"gradient of {place}"] = contents(value.grad) if value.is_leaf else None
    return state


def contents(value: Any) -> Any:
    """Copy the values of a tensor into a type that `==` compares; others by their id."""
    plain = type(value) in (Tensor, nn.Parameter) and not value.is_nested
    if not plain or value.layout != torch.strided or value.is_meta or value.is_quantized:
        return id(value)
    flat = value.detach().clone().contiguous().view(-1)
    numbers = torch.view_as_real(flat) if flat.is_complex() else flat
    return str(value.dtype), tuple(value.shape), numbers.double().numpy().tobytes()


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterable[str]:
    """Name what differs."""
    return (name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
