"""What a stage of `make gpu` leaves: figures as JSON, tables as text, and all output as a log."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from faigfast.io.atomic import write_json, write_text
from faigfast.io.environment import describe_gpu, describe_machine, describe_versions

ROOT = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """Where results go: FAIGFAST_RESULTS, or benchmarks/results."""
    return Path(os.environ.get("FAIGFAST_RESULTS") or ROOT / "benchmarks" / "results")


@dataclass
class Results:
    """Of one stage; several processes write them in turn.

    Attributes
    ----------
    stage : str
    command : list of str
        What was asked for.
    machine, versions : dict
        Device, driver and versions.
    steps : dict
        State, seconds and command line of each.
    found : dict
        Figures of each step that measures.
    tables : dict
        In the order in which they are shown.
    """

    stage: str
    command: list[str]
    machine: dict[str, Any] = field(
        default_factory=lambda: describe_machine() | describe_gpu("cuda")
    )
    versions: dict[str, str] = field(default_factory=describe_versions)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, stage: str) -> "Results":
        """Remove what an earlier run left, and start anew."""
        for kind in ("json", "txt", "log"):
            path_of(stage, kind).unlink(missing_ok=True)
        for half in folder().glob(f".{path_of(stage, 'json').stem}.*"):
            half.unlink()  # of a process that was ended while it wrote
        results = cls(stage, ["make", "gpu", f"STAGE={stage}"])
        results.save()
        return results

    @classmethod
    def read(cls, stage: str) -> "Results":
        """Read what there is so far."""
        return cls(**json.loads(path_of(stage, "json").read_text(encoding="utf-8")))

    def save(self) -> None:
        """Write both files, each whole."""
        write_json(path_of(self.stage, "json"), asdict(self))
        write_text(path_of(self.stage, "txt"), self.text() + "\n")

    def text(self) -> str:
        """Say where and with what it ran, how every step ended, and what was measured."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lines = [self.machine.get("gpu", self.machine["cpu"]), versions, " ".join(self.command)]
        lines += [f"{name}: {step['state']}" for name, step in self.steps.items()]
        return "\n\n".join(["\n".join(lines), *self.tables.values()])


def path_of(stage: str, kind: str) -> Path:
    """Where a stage leaves its table, figures or output."""
    name = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    return folder() / f"{name}-{stage}.{kind}"
