"""Draw docs/guide/speed.svg from the table of docs/lab/first-call.md.

    .venv/bin/python scripts/speed_chart.py

The bars say how many times faster than the tuned loop a first and a repeated call of faigfast are.
"""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
LABELS = {
    "srresnet-48x1": "SRResNet 64×16, one image of 48²",
    "pair-folder": "SRResNet 32×8, 14 images of 14 sizes",
    "srresnet-folder": "SRResNet 64×16, 14 images of 14 sizes",
    "swinir-48x1": "SwinIR lightweight, 48²",
    "hat-48x1": "HAT-S, two groups, 48²",
    "dat-48x1": "DAT-light, 48²",
    "restormer-48x1": "Restormer, 48²",
}
COLORS = {"first call": "#9db8d2", "repeated call": "#1f4e79"}
HEIGHT = 0.38  # of a bar; two make a workload


def ratios(text: str) -> dict[str, tuple[float, float]]:
    """Read (first, repeated) of every workload: the loop's time divided by faigfast's."""
    values: dict[str, tuple[float, float]] = {}
    workload = ""
    for row in text.splitlines():
        if heading := re.match(r"([\w-]+): ", row):
            workload = heading[1]
        elif row.lstrip().startswith("faigfast"):
            _, _, _, _, repeated, _, first, *_ = row.split()
            values[workload] = float(first), float(repeated)
    return values


def draw(values: dict[str, tuple[float, float]]) -> Figure:
    """Draw two bars for each workload that has a label."""
    names = [name for name in LABELS if name in values]
    figure = Figure(figsize=(6.9, 0.42 * len(names) + 0.8), layout="constrained")
    axes = figure.subplots()
    for kind, (label, color) in enumerate(COLORS.items()):
        places = [row + (kind - 0.5) * HEIGHT for row in range(len(names))]
        bars = axes.barh(places, [values[name][kind] for name in names], HEIGHT, color=color)
        bars.set_label(label)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel("times faster than a tuned PyTorch loop (at 1)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "faigfast"  # the same file from the same table
    table = (DOCS / "lab" / "first-call.md").read_text(encoding="utf-8")
    draw(ratios(table)).savefig(DOCS / "guide" / "speed.svg", metadata={"Date": None})
