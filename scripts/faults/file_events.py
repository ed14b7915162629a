"""Kill: SIGKILL at the n-th file event of a process below a folder."""

import mmap
import os
import signal
import sys
from pathlib import Path
from typing import Any

from forked import Fault

# Audit events with the paths among their first two arguments.
EVENTS = (
    "open",
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "tempfile.mkstemp",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Kill(Fault):
    """SIGKILL before a file event takes place; without one events are counted alone.

    Parameters
    ----------
    folder : pathlib.Path
        Events on the folder and below it count.
    event : int, optional
        The event, from 1.
    """

    def __init__(self, folder: Path, event: int | None = None) -> None:
        self.folder = os.path.realpath(folder)
        self.event = event
        self.count = 0

    def install(self, counter: mmap.mmap) -> None:
        """Count events from now on; a hook stays for the life of the process."""
        self.counter = counter
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not any(map(self._below, arguments[:2])):
            return
        if event == "open" and not (arguments[2] or 0) & WRITING:
            return
        self.count += 1
        self.counter[:] = self.count.to_bytes(8, "little")
        if self.count == self.event:
            os.kill(os.getpid(), signal.SIGKILL)

    def _below(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        place = os.path.abspath(os.fsdecode(path))
        return place == self.folder or place.startswith(self.folder + os.sep)
