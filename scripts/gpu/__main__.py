"""Try and measure everything that runs on an NVIDIA GPU, before a deadline: `make gpu`.

    python -m scripts.gpu                      the first call: what is right, and how fast
    python -m scripts.gpu second               failures again, layers, end to end, the experiment
    python -m scripts.gpu conv64 table-triton  some items
    python -m scripts.gpu report               the tables of what is recorded, without a GPU

Every item is a process with a hard limit. Its steps append JSON lines to gpu.jsonl in the folder
FAIGFAST_RESULTS (benchmarks/results where it is not set), beside gpu.md with the tables and gpu.log
with all output. What is recorded for the same sources and device is not repeated, so that a call
goes on where the last one was stopped, also on another day. Nothing needs a network.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import staging, stamp
from .items import BUILT, FIRST, ITEMS, ROOT, SECOND, TABLE, Item
from .markdown import report
from .results import Results, has_failed
from .session import Session, say

SECONDS = 420.0


def main() -> int:
    """Run what the command line asks for; give the exit status."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="scripts.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["first"], help="first, second or items")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="until the deadline; 420")
    options = parser.parse_args()
    folder = Path(os.environ.get("FAIGFAST_RESULTS") or ROOT / "benchmarks" / "results").resolve()
    results = Results(folder / "gpu.jsonl")
    if options.what == ["report"]:
        print(report(results.lines()))
        return 0
    try:
        items, retry = chosen(options.what, results)
        folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as problem:
        return refuse(str(problem))
    # An exception ends the running item too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    staging.stage()
    environment = staging.environment()
    try:
        own = stamp.make_stamp(environment)
    except stamp.NoGpuError as why:
        return refuse(f"make gpu needs an NVIDIA GPU: {why}")

    def write_tables() -> None:
        half = folder / "gpu.md.half"
        half.write_text(report(results.lines()) + "\n", encoding="utf-8")
        half.replace(folder / "gpu.md")

    session = Session(folder, own, began + options.seconds, environment, BUILT, write_tables)
    left_out = session.run(items, retry)
    write_tables()
    print("\n" + report(results.lines()))
    if left_out:
        say("The deadline left items out; the same command goes on with them.")
    return int(any(has_failed(results.lines(), item.name) for item in items))


def chosen(words: Sequence[str], results: Results) -> tuple[list[Item], bool]:
    """Give the items in order, and whether those that failed run again.

    Raises
    ------
    ValueError
        If a word names nothing.
    """
    if list(words) == ["first"]:
        return [*FIRST], False
    if list(words) == ["second"]:
        lines = results.lines()
        failed = [item for item in FIRST if has_failed(lines, item.name)]
        order = [FIRST[0], *failed, *TABLE, *SECOND, *FIRST]
        return list(dict.fromkeys(order)), True
    for word in words:
        if word not in ITEMS:
            names = ", ".join(["first", "second", "report", *ITEMS])
            raise ValueError(f"the item is {word!r}; expected one of {names}")
    return list(dict.fromkeys([FIRST[0], *(ITEMS[word] for word in words)])), True


def refuse(text: str) -> int:
    """Print an error; give the exit status."""
    print(f"faigfast: {text}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
