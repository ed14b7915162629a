"""A worker as a process of its own: `python -m faigfast.sweeps.worker_process DESCRIPTOR`.

The driver and the worker exchange pickled messages on a socket. A worker whose driver has gone
ends by itself.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

WATCH = 1.0  # seconds between two looks at the driver


def main(descriptor: int) -> None:
    """Compute one unit after another until the driver closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    driver = os.getppid()
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):  # the driver has gone, or wants no more
        _serve(connection)
    os._exit(0)  # without waiting for threads of other packages


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(WATCH)
    os._exit(1)


def _serve(connection: Connection) -> None:
    start: dict[str, Any] = connection.recv()
    sys.path[:] = start["path"]
    import torch

    from faigfast.sweeps.worker import TRANSIENT, UnitComputer, UnitFailure

    torch.set_num_threads(start["threads"])
    computer = UnitComputer(start["folder"], start["memory"])
    connection.send(("ready", "", None))
    while True:
        task, pair = connection.recv()
        try:
            if pair is not None:
                computer.add_pair(*pair)
            answer = ("done", task.unit, computer.compute(task))
        except UnitFailure as failure:
            answer = ("failed", task.unit, (failure.kind, failure.text))  # type: ignore[assignment]
        except Exception as problem:  # a bug; the driver tries again, then reports it
            text = f"{type(problem).__name__}: {problem}"
            answer = ("failed", task.unit, (TRANSIENT, text))  # type: ignore[assignment]
        connection.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
