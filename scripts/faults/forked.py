"""Commands in forked processes: nothing is imported twice, and a fault is installed before each.

The parent has imported everything and computed nothing: no thread is lost by the fork.
"""

import fcntl
import mmap
import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from faigfast.__main__ import main

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = 120  # seconds that one command may take
PIPE = 2**20  # bytes of output that a command may write
PROCESSES = len(os.sched_getaffinity(0))


class Fault:
    """Something that happens to a process; by itself nothing does."""

    def install(self, counter: mmap.mmap) -> None:
        """Prepare the fault in the process that is hit; the counter reports to its parent."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Parameters
    ----------
    code : int
        Exit code, or the negative number of the signal that killed it.
    out, err : str
        What it wrote.
    count : int
        What its fault counted.
    """

    code: int
    out: str
    err: str
    count: int = 0

    def __str__(self) -> str:
        """Describe the end and the last words on stderr."""
        end = f"exit code {self.code}" if self.code >= 0 else signal.Signals(-self.code).name
        return f"{end}, stderr {self.err[-400:]!r}"


def run(words: Sequence[str], folder: Path, fault: Fault | None = None) -> Outcome:
    """Run one command in a child process.

    Parameters
    ----------
    words : sequence of str
        After "faigfast".
    folder : pathlib.Path
        Working folder of the command.
    fault : Fault, optional
        Hits the child.
    """
    counter = mmap.mmap(-1, 8)  # shared with the child, and readable after its death
    pipes = [os.pipe(), os.pipe()]
    for _, end in pipes:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE)
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _run_and_exit(words, folder, fault, counter, [end for _, end in pipes])
    for _, end in pipes:
        os.close(end)
    handle = os.pidfd_open(child)
    if not select.select([handle], [], [], PATIENCE)[0]:
        os.kill(child, signal.SIGKILL)
    os.close(handle)
    _, status = os.waitpid(child, 0)
    texts = [_read_all(end) for end, _ in pipes]
    return Outcome(os.waitstatus_to_exitcode(status), *texts, int.from_bytes(counter[:], "little"))


def _run_and_exit(
    words: Sequence[str],
    folder: Path,
    fault: Fault | None,
    counter: mmap.mmap,
    ends: Sequence[int],
) -> None:
    code = 1
    try:
        for end, stream in zip(ends, (1, 2), strict=True):
            os.dup2(end, stream)
        os.chdir(folder)
        sys.argv = ["faigfast", *words]
        if fault:
            fault.install(counter)
        code = main()
        sys.stdout.flush()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        os._exit(code)


def _read_all(end: int) -> str:
    os.set_blocking(end, False)  # a grandchild may still hold the other end
    with open(end, "rb") as stream:
        return (stream.read() or b"").decode(errors="replace")


def in_parallel(function: Callable[[T], R], cases: Sequence[T]) -> list[R]:
    """Map cases in one forked process for each core."""
    shares = [range(n, len(cases), PROCESSES) for n in range(min(PROCESSES, len(cases)))]
    readers = [_in_child(function, [cases[n] for n in share]) for share in shares]
    results: dict[int, R] = {}
    for share, reader in zip(shares, readers, strict=True):
        with open(reader, "rb") as stream:
            answer = stream.read()
        os.wait()
        if not answer:
            raise RuntimeError("a process of the campaign failed; its traceback is above")
        for n, result in zip(share, pickle.loads(answer), strict=True):
            results[n] = result
    return [results[n] for n in range(len(cases))]


def _in_child(function: Callable[[T], R], cases: Sequence[T]) -> int:
    """Start a process for some cases; give the pipe on which their results will come."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    if os.fork():
        os.close(writer)
        return reader
    code = 1
    try:
        with open(writer, "wb") as stream:
            stream.write(pickle.dumps([function(case) for case in cases]))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
