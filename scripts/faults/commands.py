"""The commands that are disturbed, on tiny networks and photographs."""

import atexit
import gc
import pkgutil
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import faigfast
import faigfast.cli.main as cli
from faigfast.analysis.locations import locations
from faigfast.analysis.masking import mask
from faigfast.data import write_image
from faigfast.zoo import SRCNNStyle

OUTPUT = "out"
STUDY = ("--gt", "photos", "--crop", "24", "--steps", "2")
ONE_LEARNT = ("--degrade", "clean", "noise=0.1")  # nothing is retrained for clean images
PAIR = ("a.safetensors", "b.safetensors")

# Modules that a command would import first in each forked process.
IMPORTED = (
    "faigfast.cli.attribute",
    "faigfast.cli.mask",
    "faigfast.cli.report",
    "faigfast.cli.retrain",
    "faigfast.cli.train",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "pandas",
    "pandas.io.formats.csvs",
    "PIL.ImageOps",
    "PIL.PngImagePlugin",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "scipy.stats",
    "skimage",
    "torch._dynamo",  # by torch's optimisers
    "torch._subclasses.schema_check_mode",
    "torch.utils.serialization",
    "torchmetrics.image",
)


def figure_data(figure: Any, suffix: str) -> bytes:
    """Give the data of a figure instead of a drawing, which takes half of the time."""
    data = [
        [
            axis.get_title(),
            [line.get_xydata().tolist() for line in axis.lines],
            [image.get_array().tolist() for image in axis.images],
            [str(patch) for patch in axis.patches],
            [text.get_text() for text in axis.texts],
        ]
        for axis in figure.axes
    ]
    return f"<svg>{data}</svg>".encode()


# Constants that make a run short, and its states frequent.
SMALLER = {
    "faigfast.training.trainer.SAVE_EVERY": 4,
    "faigfast.training.trainer.LOG_EVERY": 4,
    "faigfast.cli.train.KEPT_OUT": ("microaneurysms.png",),  # one crop
    "faigfast.cli.report.METRICS": {"psnr": "PSNR, dB", "difference": "output difference"},
    "faigfast.cli.report.PATCH": 8,
    "faigfast.analysis.report.paper.content": figure_data,
    "faigfast.analysis.report.sections.use.PATCH": 8,
    "faigfast.analysis.report.sections.use.STRENGTHS": (0.0, 1.0, 1.5),
    "faigfast.analysis.report.sections.use.SHOWN_STRENGTHS": (0.5, 1.5),
    "faigfast.analysis.report.sections.ability.METRICS": {"psnr": "", "difference": ""},
    "faigfast.analysis.report.sections.ability.METHODS": {"faig": "", "gradient": ""},
    "faigfast.analysis.report.sections.ability.locations": partial(locations, draws=1),
    "faigfast.analysis.report.sections.ability.mask": partial(mask, fractions=(0.1,)),
}


@dataclass(frozen=True)
class Command:
    """A command without its output folder.

    Parameters
    ----------
    words : tuple of str
        The command's name and options.
    other : tuple of str
        Options that make another run of it.
    image : str
        An image that the results depend on.
    """

    words: tuple[str, ...]
    other: tuple[str, ...]
    image: str

    @property
    def argv(self) -> list[str]:
        """Words after "faigfast"."""
        return [*self.words, "--output", OUTPUT, "--quiet"]


COMMANDS = {
    "attribute": Command(
        ("attribute", *PAIR, "--gt", "gt", "--steps", "2", "--degrade", "blur=1", "noise=0.1"),
        ("--steps", "3"),
        "gt/1.png",
    ),
    "mask": Command(
        ("mask", *PAIR, *STUDY, "--methods", "faig", "gradient", "--metrics", "psnr", "difference",
         "--fractions", "0.1"),
        ("--steps", "3"),
        "photos/first.png",
    ),
    "retrain": Command(
        ("retrain", *PAIR, *STUDY, *ONE_LEARNT, "--train", "others",
         "--iterations", "8", "--batch", "2", "--patch", "8"),
        ("--seed", "1"),
        "others/first.png",
    ),
    "train": Command(
        ("train", "--folder", "gt", "--network", "srcnn", "--width", "3", "--depth", "1",
         "--iterations", "12", "12", "--batch", "2", "--patch", "8"),
        ("--seed", "1"),
        "gt/1.png",
    ),
    "report": Command(
        ("report", *PAIR, *STUDY, *ONE_LEARNT, "--train", "others", "--iterations", "4",
         "--learned", "2", "--predicted", "2"),
        ("--seed", "1"),
        "photos/first.png",
    ),
}  # fmt: skip


def prepare() -> None:
    """Import everything that the commands use, and make their runs short."""
    torch.set_num_threads(1)
    for name in IMPORTED:
        import_module(name)
    for place, value in SMALLER.items():
        module, _, name = place.rpartition(".")
        setattr(pkgutil.resolve_name(module), name, value)
    parser = cli.build_parser()
    cli.build_parser = lambda: parser  # type: ignore[assignment]
    gc.collect()
    gc.freeze()  # forked processes need not copy what their collector would visit
    atexit.register(gc.unfreeze)


@contextmanager
def tiny_inputs() -> Iterator[Path]:
    """Make checkpoints and photographs in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="disturbed-") as name:
        folder = Path(name)
        generator = torch.Generator().manual_seed(1)
        for file in PAIR:
            network = SRCNNStyle((3, 4), scale=2)
            for weight in network.parameters():
                weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
            faigfast.save_model(network, folder / file)
        sides = {"gt/0": (24, 28), "gt/1": (24, 24), "gt/2": (28, 24), "gt/3": (20, 28)}
        for place in ("photos", "others"):
            sides |= {f"{place}/first": (24, 48), f"{place}/second": (24, 52)}
        for place, size in sides.items():
            write_image(folder / f"{place}.png", torch.rand(3, *size, generator=generator))
        yield folder


@contextmanager
def workplace(inputs: Path) -> Iterator[Path]:
    """Give a temporary folder with a copy of the inputs."""
    with tempfile.TemporaryDirectory(prefix="disturbed-") as name:
        shutil.copytree(inputs, name, dirs_exist_ok=True)
        yield Path(name)
