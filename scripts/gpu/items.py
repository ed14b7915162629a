"""What is tried and measured: items in order, each with its time and its sources."""

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "gpu"  # ignored by git: what is built, and the package as items import it

# Files that results depend on.
_CUDA = ("csrc/cuda/*",)
_PROGRAM = (*_CUDA, "scripts/gpu/program/*")
# Triton's kernels stand around cuDNN's convolutions too.
_OPERATIONS = ("kernels/*.py", "faigfast/ops/**/*.py", "faigfast/backend/**/*.py")
_PLAIN = ("faigfast/ops/**/*.py", "scripts/gpu/layers.py", "scripts/gpu/graph_timing.py")
_LAYERS = (*_OPERATIONS, *_PLAIN)
_CALLS = (
    *_OPERATIONS, "faigfast/attribution/*.py", "faigfast/engine/*.py", "faigfast/integration/*.py",
    "faigfast/models/*.py",
)  # fmt: skip
_TESTS = (*_CALLS, *_CUDA, "tests/gpu/*.py", "tests/cases/*.py")


@dataclass(frozen=True)
class Item:
    """One process with a limit; it runs steps and appends a line for each.

    Parameters
    ----------
    name : str
        Name in the results file and on the command line.
    body : str
        Module of `scripts.gpu.bodies` whose `steps(*words)` maps names to functions.
    seconds : float
        Hard limit, after which the process and all that it started are killed.
    sources : tuple of str
        Globs of the files that the result depends on, besides the body itself.
    words : tuple of str
        Arguments of `steps`.
    background : bool
        Whether the items after it that are `beside` it run at the same time.
    beside : bool
        Whether it needs nothing of the background item.
    local : bool
        Whether it leaves something on this machine, so that a line in the file cannot replace it.
    command : tuple of str
        Replaces the command that runs the body.
    """

    name: str
    body: str
    seconds: float
    sources: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    background: bool = False
    beside: bool = False
    local: bool = False
    command: tuple[str, ...] = field(default=(), compare=False)

    def start_command(self) -> list[str]:
        """Command that runs the item; the session adds one argument."""
        own = (sys.executable, "-m", "scripts.gpu.run", self.name)
        return list(self.command or own)

    def files(self, root: Path = ROOT) -> list[Path]:
        """Give the files that the result depends on, in order."""
        globs = (f"scripts/gpu/bodies/{self.body}.*", *self.sources)
        return sorted({p for pattern in globs for p in root.glob(pattern) if p.is_file()})

    def sources_hash(self, root: Path = ROOT) -> str:
        """Hash of the names and contents of these files, and of the item's own words."""
        digest = hashlib.sha256(repr((self.name, self.words)).encode())
        for path in self.files(root):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]


FIRST = (
    Item("build", "build", 40, _PROGRAM, background=True, local=True),
    Item("ceilings", "ceilings", 30, ("scripts/gpu/graph_timing.py",), beside=True),
    Item("table-cudnn", "layer_table", 30, _PLAIN, ("cudnn",), beside=True),
    Item("table-torch", "layer_table", 40, _PLAIN, ("torch",), beside=True),
    Item("conv64", "conv64", 20, _PROGRAM),
    Item("one-shape-triton", "one_shape", 50, _LAYERS, ("triton",)),
    Item("one-shape-cuda", "one_shape", 30, _LAYERS, ("cuda",)),
    Item("one-shape-hopper", "one_shape", 20, (*_LAYERS, *_CUDA), ("hopper",)),
    Item("table-triton", "layer_table", 60, _LAYERS, ("triton",)),
    Item("table-cuda", "layer_table", 30, _LAYERS, ("cuda",)),
    Item("table-hopper", "layer_table", 25, (*_LAYERS, *_CUDA), ("hopper",)),
    Item("attribute-torch", "whole_calls", 40, _CALLS, ("torch",)),
    Item("attribute-cuda", "whole_calls", 40, _CALLS, ("cuda",)),
    Item("attribute-triton", "whole_calls", 60, _CALLS, ("triton",)),
    Item("memcheck", "sanitizers", 60, _TESTS, ("memcheck",)),
    Item("racecheck", "sanitizers", 60, _TESTS, ("racecheck",)),
    Item("tests", "device_tests", 200, _TESTS),
)
TABLE = tuple(item for item in FIRST if item.body == "layer_table")
SECOND = (
    Item("end-to-end-256x1", "end_to_end", 150, _CALLS, ("srresnet-256x1",)),
    Item("end-to-end-48x16", "end_to_end", 150, _CALLS, ("srresnet-48x16",)),
    Item("experiment", "paper_experiment", 200, _CALLS),
)
ITEMS = {item.name: item for item in (*FIRST, *SECOND)}
