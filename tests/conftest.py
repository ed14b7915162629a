"""Folders that pytest leaves out, and fixtures for several files."""

import gc
import os

import pytest

from faigfast.backend.cpu import extension as _extension

# `cases` holds no tests. Triton's interpreter needs its own process: see builds/test_triton.py.
collect_ignore = ["cases"]
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore.append("builds/triton_interpreted.py")


def pytest_collection_finish(session):
    """Leave all tests and modules out of garbage collections, which walk them for a second each."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    """Thaw them: at exit, Triton warns of every type that the interpreter does not free."""
    gc.unfreeze()


@pytest.fixture
def wide_chunks(monkeypatch):
    """Let the engine take two points of two images together, which it does not do on a CPU."""
    from faigfast.engine import chunking
    from faigfast.engine.memory import Chunk

    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), Chunk(2, 2)))
    monkeypatch.setattr(chunking, "BYTES_PER_THREAD", {})


@pytest.fixture(params=[] if _extension.module is None else _extension.module.supported())
def isa(request, monkeypatch):
    """Run the C++ kernels in every instruction set of this machine."""
    monkeypatch.setenv("FAIGFAST_ISA", request.param)
