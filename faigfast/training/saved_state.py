"""State of a training in one part: what a killed run resumes from."""

import io
import warnings
from typing import Any

import torch
from torch import Tensor

from faigfast.io.parts import Parts

STATE = "state"  # part that a training resumes from


def save_state(parts: Parts, state: dict[str, Any]) -> None:
    """Save a state of plain Python values and tensors, whole or not at all."""
    content = io.BytesIO()
    torch.save(state, content)
    parts.save(STATE, {STATE: torch.frombuffer(content.getbuffer(), dtype=torch.uint8)})


def load_state(parts: Parts) -> dict[str, Any] | None:
    """Load the saved state; None where there is none, with a warning where it is damaged."""
    if saved := parts.load(STATE, _from_tensors):
        return saved
    if parts.path(STATE).is_file() and not parts.discarded:
        warnings.warn(f"{parts.path(STATE)} is damaged: the training starts again", stacklevel=3)
    return None


def _from_tensors(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> dict[str, Any]:
    return torch.load(io.BytesIO(tensors[STATE].numpy().tobytes()), weights_only=True)
