"""Fingerprints of networks, tensors and states of random generators."""

import hashlib
import pickle
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from faigfast.models.state import tensors


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a module's state dict."""
    return digest_of(tensors(model))


def fingerprints(*models: nn.Module) -> list[str]:
    """Fingerprints of several modules."""
    return [fingerprint(model) for model in models]


def digest_of(named: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in any order."""
    digest = hashlib.sha256()
    for key, value in sorted(named.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        # As uint8, since numpy has no bfloat16.
        octets = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(octets.numpy().data)
    return digest.hexdigest()


def generators() -> str:
    """Fingerprint the states of all random generators: torch's, NumPy's and Python's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    arrays = [state.numpy() for state in states]
    content = pickle.dumps((arrays, random.getstate(), np.random.get_state()))
    return hashlib.sha256(content).hexdigest()
