"""Child processes that do not outlive their parent, nor their time."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process in a group of its own, with a time at which it is killed."""

    def __init__(
        self, command: Sequence[str], seconds: float, log: IO[bytes], **options: Any
    ) -> None:
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent, **options,
        )  # fmt: skip

    def wait(self) -> int | None:
        """Wait for its exit status; None where its time was over."""
        try:
            return self.process.wait(max(self.until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all of its session, whatever their process groups."""
        for process in (self.process.pid, *members(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def members(session: int) -> list[int]:
    """List the processes of a session."""
    numbers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            # The name, in parentheses, may hold spaces.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                numbers.append(int(folder.name))
    return numbers


def output_of(command: Sequence[str], seconds: float, **options: Any) -> tuple[int | None, str]:
    """Run a command of a step; give its exit status, None where its time was over, and its output.

    The output is printed too, into the log of the item. What the command started ends with it.
    """

    def alone() -> None:
        die_with_parent()
        os.setpgid(0, 0)

    print(f"$ {' '.join(command)}", flush=True)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", preexec_fn=alone, **options,
    )  # fmt: skip
    code: int | None
    try:
        output, code = process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, code = process.communicate()[0], None
    print(output, flush=True)
    return code, output
