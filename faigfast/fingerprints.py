"""Fingerprints: what tells networks, tensors and states of random generators apart."""

import hashlib
import pickle
import random
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from faigfast.networks import tensors

# What was hashed last of a module: a checksum, which is read three times as fast, and the hash.
_hashed = WeakIdKeyDictionary()


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a module's state dict.

    It is remembered as long as the CRC-32 of every tensor stays as it was: what was written by way
    of `.data` leaves no other trace.
    """
    named = tensors(model)
    checksums = [(name, zlib.crc32(octets)) for name, octets in _pieces(named)]
    known: tuple[list[tuple[str, int]], str] | None = _hashed.get(model)
    if known is None or known[0] != checksums:
        known = _hashed[model] = checksums, digest_of(named)
    return known[1]


def fingerprints(*models: nn.Module) -> list[str]:
    """Fingerprints of several modules."""
    return [fingerprint(model) for model in models]


def digest_of(named: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in whatever order they come."""
    found = hashlib.sha256()
    for name, octets in _pieces(named):
        found.update(name.encode())
        found.update(octets)
    return found.hexdigest()


def _pieces(named: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
    """Each tensor's name, type and shape, and its octets: by uint8, as numpy has no bfloat16."""
    for key, value in sorted(named.items()):
        octets = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        yield f"{key} {value.dtype} {tuple(value.shape)}\n", octets.numpy().data


def generators() -> str:
    """Fingerprint the states of all random generators: torch's, NumPy's and Python's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    arrays = [state.numpy() for state in states]
    content = pickle.dumps((arrays, random.getstate(), np.random.get_state()))
    return hashlib.sha256(content).hexdigest()
