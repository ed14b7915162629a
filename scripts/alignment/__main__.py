"""Barriers of pairs before and after the baseline's channels are matched; their common origin.

    .venv/bin/python -m scripts.alignment --output docs/lab/alignment.md       the whole table
    .venv/bin/python -m scripts.alignment --only published --pairs noise3      some pairs
    .venv/bin/python -m scripts.alignment --rows rows.jsonl                    go on after a kill

Needs scipy and scikit-image; published pairs are left out where their package is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch
from torch import Tensor

from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs
from scripts import barriers
from scripts.barriers import Pair

from .groups import permutation_groups
from .measure import Images, Measured, measured
from .origin import returns

BEGIN = "<!-- from here written by scripts/alignment -->"
END = "<!-- to here written by scripts/alignment -->"
HEAD = (
    "pair", "matching", "distance", "moved", "change of outputs", "degradation",
    "barrier, median", "barrier, worst", "worst loss / larger end",
)  # fmt: skip
ORIGIN_HEAD = (
    "pair", "channels that permute", "cosine as given", "shuffled", "matched again",
    "channels back at their own place",
)  # fmt: skip


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--pairs", nargs="+", default=[""], metavar="WORD", help="parts of names")
    parser.add_argument("--rows", type=Path, help="file of JSON lines: its pairs are not repeated")
    parser.add_argument("--output", type=Path, help="document that receives the table")
    options = parser.parse_args()
    before, after = _surroundings(options.output) if options.output else ("", "")
    torch.set_num_threads(1)
    lines, origins = _head(HEAD), _head(ORIGIN_HEAD)
    done = _stored(options.rows)
    for kind in options.only:
        for pair, shuffled in KINDS[kind]():
            name = f"{pair.name}{', shuffled' if shuffled else ''}"
            if not any(word in name for word in options.pairs):
                continue
            if name not in done:
                results = measured(*pair.networks, images_of(pair), shuffled)
                done[name] = {
                    "origin": [] if shuffled else [origin(pair)],
                    "barriers": [row for result in results for row in rows(name, result)],
                }
                print(*chain(*done[name].values()), sep="\n", file=sys.stderr, flush=True)
                _store(options.rows, done)
            lines += done[name]["barriers"]
            origins += done[name]["origin"]
    table = "\n".join([*origins, "", *lines])
    print(table)
    if options.output:
        text = f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
        options.output.write_text(text, encoding="utf-8")
    return 0


def _stored(path: Path | None) -> dict[str, dict[str, list[str]]]:
    if path is None or not path.exists():
        return {}
    return dict(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def _store(path: Path | None, done: dict[str, dict[str, list[str]]]) -> None:
    if path is not None:
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in done.items()]
        path.write_text("".join(lines), encoding="utf-8")


def _head(names: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def origin(pair: Pair) -> str:
    """Write the row of a pair in the table of origins: the worst of three random orders."""
    baseline, target = pair.networks
    groups = permutation_groups(baseline, target, image_for(pair))
    results = list(returns(groups, baseline, target))
    worst = min(results, key=lambda result: result.own_place)
    cells = (
        pair.name, str(worst.channels), f"{worst.given:.3f}", f"{worst.start:.3f}",
        f"{worst.matched:.3f}", f"{100 * worst.own_place:.1f} %",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def image_for(pair: Pair) -> Tensor:
    """Make a random image [1, 3, H, W] of the size on which a pair is measured."""
    side = barriers.CROP // 2 + 2 * int(pair.options.get("pad", 0))
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def rows(name: str, result: Measured) -> list[str]:
    """Write one row a degradation."""
    made = []
    for degradation, values in result.barriers.items():
        cells = (
            name, result.matching, f"{result.distance:.3g}", f"{100 * result.moved:.0f} %",
            f"{result.change:.0e}", degradation, f"{values.median():.3g}", f"{values.max():.3g}",
            f"{result.heights[degradation].median():.3g}",
        )  # fmt: skip
        made.append(f"| {' | '.join(cells)} |")
    return made


def images_of(pair: Pair) -> Images:
    """Take the crops of docs/lab/barrier.md, and crops of other photographs to match by."""
    gt, others = (_crops(names) for names in (KEPT_OUT, TRAINING))
    calibration = [_degraded(others, recipe) for recipe in pair.recipes]
    return Images(
        {recipe: _degraded(gt, recipe) for recipe in pair.recipes},
        gt,
        int(pair.options.get("pad", 0)),
        list(torch.cat(calibration).split(1)),
    )


def _crops(names: tuple[str, ...]) -> Tensor:
    return torch.stack([barriers.middle(image) for image in photographs(names).values()])


def _degraded(gt: Tensor, recipe: str) -> Tensor:
    lq: Tensor = Degradation.parse(recipe, scale=2)(gt, seed=0)
    return lq


def _surroundings(path: Path) -> tuple[str, str]:
    """Give the text of a document before and after the table."""
    before, begun, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{path} lacks the lines {BEGIN!r} and {END!r}")
    return before, after


def _published() -> Iterator[tuple[Pair, bool]]:
    for pair in sorted(barriers.published(), key=lambda pair: "scale → noise3" not in pair.name):
        yield pair, False


def _shipped() -> Iterator[tuple[Pair, bool]]:
    """Give the shipped pairs; SRCNN's with the baseline's channels shuffled, too."""
    for pair in islice(barriers.shipped(), 3):
        yield pair, False
        if "srcnn" in pair.name:
            yield pair, True


def _apart() -> Iterator[tuple[Pair, bool]]:
    """Give two networks that were trained from random weights of their own."""
    yield next(barriers.unrelated()), False


KINDS: dict[str, Callable[[], Iterator[tuple[Pair, bool]]]] = {
    "published": _published,
    "shipped": _shipped,
    "apart": _apart,
}

if __name__ == "__main__":
    sys.exit(main())
