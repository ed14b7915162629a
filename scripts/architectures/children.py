"""Child processes with a time limit and a memory limit."""

import multiprocessing
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "faigfast.attribution.one_call", "measure"])
POLL = 0.05  # seconds
ENDING = 5  # seconds from the row to the end of the process
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


def measured(name: str, timed: bool, seconds: float, memory: float) -> dict[str, Any]:
    """Run `measure.measure` in a child.

    Parameters
    ----------
    name : str
        Architecture.
    timed : bool
        As in `measure.measure`.
    seconds : float
        Time after which the child is killed.
    memory : float
        Bytes of resident memory at which the child is killed.

    Returns
    -------
    dict
        The child's row; one with `failed` if it was killed or died.
    """
    receiver, sender = SERVER.Pipe(duplex=False)
    child = SERVER.Process(target=_run, args=(sender, name, timed))
    child.start()
    sender.close()
    try:
        reason = _wait(receiver, child.pid, seconds, memory)
        if reason:
            return {"name": name, "failed": reason}
        try:
            row: dict[str, Any] = receiver.recv()
        except EOFError:
            child.join()
            code = child.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return {"name": name, "failed": f"the process ended by {how}"}
        child.join(ENDING)
        return row
    finally:
        child.kill()
        child.join()


def _wait(receiver: Any, process: int | None, seconds: float, memory: float) -> str:
    """Wait for a message; give the reason why it will not come, or ""."""
    end = time.monotonic() + seconds
    while not receiver.poll(POLL):
        if time.monotonic() > end:
            return f"took more than {seconds:g} s"
        if _resident(process) > memory:
            return f"needed more than {memory / MIB:.0f} MiB"
    return ""


def _resident(process: int | None) -> int:
    try:
        return PAGE * int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _run(sender: Any, name: str, timed: bool) -> None:
    import torch
    from measure import measure

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the architectures' own code
        try:
            sender.send(measure(name, timed))
        except Exception as problem:
            sender.send({"name": name, "failed": f"{type(problem).__name__}: {problem}"[:400]})
