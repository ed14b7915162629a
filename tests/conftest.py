"""What pytest leaves out when it looks for tests and doctests, and what several files need."""

import os

import pytest

from faigfast.backend.cpu import extension as _extension

# Cases hold no tests; Triton's interpreter needs processes of its own: see builds/test_triton.py.
collect_ignore = ["cases"]
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore.append("builds/triton_interpreted.py")


@pytest.fixture
def folded(monkeypatch):
    """Let the engine take two points of two images together, as it does not on a CPU."""
    from faigfast.engine import chunking
    from faigfast.engine.memory import Chunk

    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), Chunk(2, 2)))
    monkeypatch.setattr(chunking, "BYTES_PER_THREAD", {})


@pytest.fixture(params=[] if _extension.module is None else _extension.module.supported())
def isa(request, monkeypatch):
    """Have the C++ kernels run in every instruction set that works here."""
    monkeypatch.setenv("FAIGFAST_ISA", request.param)
