"""Units a second of a sweep in one process, with one worker and with two, of one thread each.

Run `OMP_NUM_THREADS=1 python scripts/sweep_scaling.py` alone on a machine of two cores. Rates are
between the first and the last finished file of scores, so that the start of processes is left out;
the ways take turns, and medians of the rounds count.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch

import faigfast
from faigfast.data import write_image
from faigfast.io.environment import describe_machine
from faigfast.io.text_table import markdown
from faigfast.zoo.pairs import shipped_folder

PAIR = "srresnet-32x8-x2"
WAYS = {"one process": 0, "1 worker": 1, "2 workers": 2}


def rate(folder: Path) -> float:
    """Units a second between the first and the last file of scores."""
    times = sorted(file.stat().st_mtime for file in folder.rglob("*.safetensors"))
    return (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="of an image, in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as work:
        photos = Path(work, "photos")
        photos.mkdir()
        generator = torch.Generator().manual_seed(0)
        for n in range(options.units):
            image = torch.rand(3, options.side, options.side, generator=generator)
            write_image(photos / f"{n:03}.png", image)
        pair = shipped_folder(PAIR)
        plan = {
            "pairs": {"pair": [str(pair / f"{n}.safetensors") for n in ("baseline", "target")]},
            "images": str(photos),
            "degradations": {"noise": [0.1]},
            "settings": [{"steps": 8}],
            "shard": 1,
        }
        for round_ in range(options.rounds):
            for name, workers in WAYS.items():
                folder = Path(work, f"{round_}-{workers}")
                faigfast.sweep(plan, folder, workers=workers)
                rates[name].append(rate(folder))
                print(f"{name}: {rates[name][-1]:.3f} units/s", flush=True)
    alone = statistics.median(rates["one process"])
    rows = []
    for name, workers in WAYS.items():
        one = statistics.median(rates[name])
        rows.append([name, f"{one:.2f}", f"{one / alone / max(1, workers):.0%}"])
    machine = describe_machine()
    print(f"{options.units} units, {machine['cpu']} ({machine['instructions']})")
    print(markdown(["way", "units/s", "of one process, each"], rows))


if __name__ == "__main__":
    main()
