"""Fingerprints of networks and tensors."""

import hashlib
from collections.abc import Mapping

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
