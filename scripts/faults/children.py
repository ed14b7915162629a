"""Child processes that run faults, watched for death, silence and memory."""

import math
import multiprocessing
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["torch", "faigfast.attribution.one_call"])
FORK = multiprocessing.get_context("fork")
POLL = 0.005  # seconds
ENDING = 5  # seconds from a child's last message to its end
MIB = 2**20


@dataclass(frozen=True)
class Stopped:
    """The last message of a child that did not return."""

    reason: str


def watch(
    function: Callable[..., None],
    *arguments: Any,
    patience: float,
    memory: float = math.inf,
    context: Any = CLEAN,
) -> Iterator[Any]:
    """Run a function in a child and yield what it sends; `Stopped` last if it did not return.

    Parameters
    ----------
    function : callable
        Called as `function(sender, *arguments)`; sends by `sender.send(message)`.
    patience : float
        Seconds without a message after which the child is killed.
    memory : float
        Bytes of resident memory, beyond those at its start, at which the child is killed.
    context : multiprocessing context
        CLEAN: forked from a server that imported torch and started no thread. FORK: from the
        process that calls.
    """
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=function, args=(sender, *arguments))
    child.start()
    sender.close()
    assert child.pid is not None
    most = resident(child.pid) + memory
    heard = time.monotonic()
    try:
        while True:
            if receiver.poll(POLL if memory < math.inf else 1.0):
                try:
                    message = receiver.recv()
                except EOFError:
                    break
                heard = time.monotonic()
                yield message
            elif time.monotonic() - heard > patience:
                yield Stopped(f"gave no sign for {patience:g} s")
                return
            elif resident(child.pid) > most:
                yield Stopped(f"needed more than {memory / MIB:.0f} MiB")
                return
        child.join(ENDING)
        if child.exitcode:
            died = f"ended with {child.exitcode}"
            if child.exitcode < 0:
                died = f"was killed by {signal.Signals(-child.exitcode).name}"
            yield Stopped(died)
    finally:
        child.kill()
        child.join()


def resident(process: int | str = "self", field: str = "VmRSS") -> int:
    """Give the resident memory of a process in bytes, 0 once it ended; VmHWM is the most so far."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    amount = re.search(rf"{field}:\s+(\d+) kB", status)
    return 1024 * int(amount[1]) if amount else 0


def forget_peak() -> None:
    """Make VmHWM of this process count from now on."""
    Path("/proc/self/clear_refs").write_text("5")
