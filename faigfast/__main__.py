"""`python -m faigfast` and the script `faigfast`."""

import os
import signal
import sys
from typing import Any


def main() -> int:
    """Run the command line and return its exit code; 2 where jsonargparse is not installed."""
    # An exception inside an import could be lost; nothing is written yet, so leave at once.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        from faigfast.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("jsonargparse", "yaml"):
            raise
        print(
            f"faigfast: error: the command line needs {error.name}: pip install 'faigfast[cli]'",
            file=sys.stderr,
        )
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return run()


def _leave(number: int, frame: Any) -> None:
    os.write(2, b"faigfast: interrupted: nothing was begun\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
