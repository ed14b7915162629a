"""A function's result from a new process, where nothing has run before."""

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
    """Call a function of a module in a new process with the same number of threads.

    The caches of torch's compiler and of Triton on disk are empty there.

    Parameters
    ----------
    function : callable
        A top-level function of a faigfast module; its result must be writable as JSON.
    *words
        Its arguments, writable as JSON.

    Raises
    ------
    RuntimeError
        If the process fails; the message has the last line of its error.
    """
    arguments = [function.__module__, function.__name__, json.dumps(words)]
    command = [sys.executable, "-c", CHILD, *arguments, str(torch.get_num_threads())]
    with TemporaryDirectory() as folder:
        empty_caches = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), folder)
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | empty_caches
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"the process of its own failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def serve(module: str, function: str, words: str, threads: str) -> None:
    """Call the function and print its result as the last line, in JSON."""
    torch.set_num_threads(int(threads))
    print(json.dumps(getattr(import_module(module), function)(*json.loads(words))))
