"""A function's result from a process of its own, where nothing has run before."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import torch

CHILD = "import sys; from faigfast.bench.fresh import serve; serve(*sys.argv[1:])"


def in_fresh_process(function: Callable[..., Any], *words: Any) -> Any:
    """Call a function of a module in a new process with as many threads.

    What torch's compiler and Triton kept on disk is not there.

    Parameters
    ----------
    function : callable
        Of the top level of a module of faigfast; what it returns can be written as JSON.
    *words
        Its arguments, which can be written as JSON too.

    Raises
    ------
    RuntimeError
        If that process fails; the message has the last line of its error.
    """
    called = [function.__module__, function.__name__, json.dumps(words)]
    line = [sys.executable, "-c", CHILD, *called, str(torch.get_num_threads())]
    with TemporaryDirectory() as folder:
        empty = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), folder)
        done = subprocess.run(line, capture_output=True, text=True, env=os.environ | empty)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"the process of its own failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def serve(module: str, function: str, words: str, threads: str) -> None:
    """Call the function and print what it returns as the last line, in JSON."""
    torch.set_num_threads(int(threads))
    print(json.dumps(getattr(import_module(module), function)(*json.loads(words))))
