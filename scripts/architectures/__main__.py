"""Attribute small networks of every architecture of spandrel, compared with a plain loop.

    .venv/bin/python scripts/architectures --output docs/lab/architectures.md     the whole table
    .venv/bin/python scripts/architectures --only NAFNet SPAN                     some networks
    .venv/bin/python scripts/architectures --rows rows.jsonl --only HAT           measure one again

Ends with 1 if scores are wrong or a call fails without a reason.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from children import MIB, measured
from networks import INSTANCES
from packages import missing
from table import markdown, verdict

BEGIN = "<!-- from here written by scripts/architectures -->"
END = "<!-- to here written by scripts/architectures -->"


def main() -> int:
    """Measure and print the table."""
    options = _options()
    if why := missing():
        print(f"scripts/architectures: {why}", file=sys.stderr)
        return 2
    before, after = _surroundings(options.output) if options.output else ("", "\n")
    rows = _stored(options.rows)
    for name in options.only or [name for name in INSTANCES if name not in rows]:
        row = measured(name, not options.untimed, options.seconds, options.memory * MIB)
        rows[name] = row
        print(f"{name}: {verdict(row)}", file=sys.stderr, flush=True)
        if options.rows:
            _store(options.rows, rows)
    shown = [rows[name] for name in INSTANCES if name in rows]
    text = f"{markdown(shown)}\n\n`.venv/bin/python scripts/architectures` on {_processor()}."
    print(text)
    if options.output:
        options.output.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return int(any(verdict(row).startswith(("wrong", "failed")) for row in shown))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="architectures of spandrel against a plain loop")
    parser.add_argument("--only", nargs="+", choices=INSTANCES, metavar="NETWORK")
    parser.add_argument("--output", type=Path, help="document that receives the table")
    parser.add_argument(
        "--rows", type=Path, help="file of JSON lines: its networks are not measured again"
    )
    parser.add_argument("--untimed", action="store_true", help="compare scores alone")
    parser.add_argument("--seconds", type=float, default=120, help="limit of a network; 120")
    parser.add_argument("--memory", type=float, default=6144, help="limit of a network, MiB; 6144")
    return parser.parse_args()


def _stored(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def _store(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()]
    path.write_text("".join(lines), encoding="utf-8")


def _surroundings(path: Path) -> tuple[str, str]:
    """Give the text of a document before and after the table; a new document has none."""
    if not path.exists():
        return "", "\n"
    before, begun, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{path} lacks the lines {BEGIN!r} and {END!r}")
    return before, after


def _processor() -> str:
    from faigfast.io.environment import describe_machine

    machine = describe_machine()
    return f"{machine['cpu']}, one thread"


if __name__ == "__main__":
    sys.exit(main())
