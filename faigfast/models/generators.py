"""The random generators of this process: torch's, NumPy's and Python's."""

import hashlib
import pickle
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def generators() -> str:
    """Fingerprint the states of all generators."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    arrays = [state.numpy() for state in states]
    content = pickle.dumps((arrays, random.getstate(), np.random.get_state()))
    return hashlib.sha256(content).hexdigest()


@contextmanager
def rewound() -> Iterator[None]:
    """Restore all generators on leaving.

    Where other threads run, nothing is restored: they may draw too, and would draw the same numbers
    again.
    """
    own = threading.current_thread()
    others = [thread for thread in threading.enumerate() if thread is not own]
    # This package's threads draw nothing.
    if any(not thread.daemon and not thread.name.startswith("faigfast-") for thread in others):
        yield
        return
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(cuda):
        states = random.getstate(), np.random.get_state()
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
