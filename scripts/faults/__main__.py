"""Seeded faults, counted: what goes wrong ends in the right results or in one clear error.

    .venv/bin/python scripts/faults --seed 0                          all classes
    .venv/bin/python scripts/faults --short                           a few of each
    .venv/bin/python scripts/faults --only kills files                some classes
    .venv/bin/python scripts/faults --output docs/lab/faults.md       the table into a document
    .venv/bin/python scripts/faults --only soak --rows FILE           rows of earlier runs beside it

Ends with 1 if the product answered a fault badly; the same seed gives the same faults.
"""

import argparse
import json
import os
import random
import shlex
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

# One thread a process: commands are forked, and the cores run several of them.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from tally import Tally, markdown

CLASSES = ("kills", "files", "signals", "calls", "hostile", "soak")
BEGIN = "<!-- from here written by scripts/faults -->"
END = "<!-- to here written by scripts/faults -->"


def main() -> int:
    """Run the classes and print their table."""
    options = _options()
    before, after = _surroundings(options.output) if options.output else ("", "")
    tallies = _stored(options.rows)
    for name in options.only:
        start = time.perf_counter()
        # Each class has its own generator: without the others it tries the same faults.
        generator = random.Random(f"{options.seed} {name}")
        tally = import_module(name).run(generator, options.short)
        tallies[name] = tally
        if options.rows:
            rows = {key: asdict(value) for key, value in tallies.items()}
            options.rows.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        for sentence in tally.bad:
            print(f"{tally.name}: {sentence}", file=sys.stderr, flush=True)
        print(f"{tally.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    shown = [tallies[name] for name in CLASSES if name in tallies]
    text = f"{markdown(shown)}\n\n`{_command(options)}` on {_processor()}."
    print(text)
    if options.output:
        options.output.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return int(any(tally.bad for tally in shown))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="seeded faults, counted by class")
    parser.add_argument("--seed", type=int, default=0, help="of the faults; default 0")
    parser.add_argument("--short", action="store_true", help="a few faults of each class")
    parser.add_argument("--only", nargs="+", choices=CLASSES, default=CLASSES, metavar="CLASS")
    parser.add_argument("--output", type=Path, help="document that receives the table")
    parser.add_argument("--rows", type=Path, help="JSON file: keeps each class for the table")
    return parser.parse_args()


def _stored(path: Path | None) -> dict[str, Tally]:
    if path is None or not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {name: Tally(**row) for name, row in rows.items()}


def _surroundings(path: Path) -> tuple[str, str]:
    """Give the text of a document before and after the table; a new document has none.

    Raises
    ------
    SystemExit
        If the document lacks the two lines around the table.
    """
    if not path.exists():
        return "", "\n"
    before, begun, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{path} lacks the lines {BEGIN!r} and {END!r}")
    return before, after


def _command(options: argparse.Namespace) -> str:
    words = ["scripts/faults", "--seed", str(options.seed)]
    if options.short:
        words.append("--short")
    if options.only != CLASSES and not options.rows:  # the table has the rows of other runs too
        words += ["--only", *options.only]
    soak = os.environ.get("FAULTS_SOAK")
    return f"{f'FAULTS_SOAK={soak} ' if soak else ''}.venv/bin/python {shlex.join(words)}"


def _processor() -> str:
    from faigfast.io.environment import describe_machine

    machine = describe_machine()
    return f"{machine['cpu']}, {machine['cores']} cores"


if __name__ == "__main__":
    sys.exit(main())
