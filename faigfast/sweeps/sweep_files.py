"""The files of a sweep: its names, units and scores, read as they are asked for."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.integration.settings import WEIGHT_METHODS
from faigfast.io.nearest_name import hint
from faigfast.io.tensor_file import load_tensors
from faigfast.sweeps import tables
from faigfast.sweeps.failures import read_failures
from faigfast.sweeps.score_files import score_file
from faigfast.sweeps.selection import Selection, select_records
from faigfast.sweeps.status import Status, status
from faigfast.sweeps.units import Grid, Unit
from faigfast.sweeps.worker import read_batch

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class UnitScores:
    """Scores of one unit.

    Parameters
    ----------
    images : tuple of str
        Identities of the n images.
    names : tuple of str
        Their names.
    tensors : dict of str to Tensor
        "scores" [n, F], "losses" [n, 2], "completeness", "error", "points" and "barrier" [n], and
        "scored" [F]. A method that looks at the weights alone gives one row without an image; its
        losses are NaN.
    notes : tuple of str
        Of the attribution.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]

    @property
    def scores(self) -> Tensor:
        """[n, F]."""
        return self.tensors["scores"]


class SweepFiles:
    """What a `Sweep` reads from its files; its parameters and errors are those of `Sweep`."""

    def __init__(self, folder: str | os.PathLike[str], grid: Grid | None = None) -> None:
        self.folder = Path(folder)
        self._grid = grid
        self._selection: Selection = select_records(self.folder)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.folder)!r}: {len(self._selection.records)} of "
            f"{self._selection.total} units)"
        )

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the pairs."""
        return self._names("pair")

    @property
    def degradations(self) -> tuple[str, ...]:
        """Names of the degradations with their levels."""
        return self._names("degradation")

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings."""
        return self._names("setting")

    @property
    def status(self) -> Status:
        """How far the sweep is, now."""
        return status(self.folder)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Images that the last run could not compute, with unit and reason."""
        return read_failures(self.folder)

    def method(self, setting: str | None = None) -> str:
        """Name the method of a setting."""
        content = self._selection.catalogue.entry("setting", self._number("setting", setting))
        return content["method"]

    def refuse_weights(self, setting: str | None = None) -> None:
        """Refuse a setting that has no images.

        Raises
        ------
        ValueError
            If its method looks at the weights alone.
        """
        if (method := self.method(setting)) in WEIGHT_METHODS:
            raise ValueError(
                f"setting {self._name('setting', setting)!r} is of the method {method!r}, whose "
                "scores follow from the weights alone and do not vary over images; expected a "
                "setting of another method"
            )

    def index(self, pair: str | None = None) -> FilterIndex:
        """Give the filters of a pair."""
        content = self._selection.catalogue.entry("pair", self._number("pair", pair))
        return FilterIndex(tuple(content["layers"]), tuple(map(tuple, content["shapes"])))

    def units(self) -> "pandas.DataFrame":
        """One row per finished unit: pair, degradation, setting, images, size of the file, file.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return tables.unit_table(self.folder, self._selection)

    def scores(
        self,
        pair: str | None = None,
        degradation: str | None = None,
        setting: str | None = None,
    ) -> Iterator[UnitScores]:
        """Give the scores unit by unit, in an order that depends on the images alone.

        Raises
        ------
        ValueError
            If a name is unknown or missing, or a file is damaged.
        """
        for unit in self.finished(pair, degradation, setting):
            yield self.read(unit)

    def finished(
        self,
        pair: str | None = None,
        degradation: str | None = None,
        setting: str | None = None,
    ) -> list[Unit]:
        """List the finished units of one pair, degradation and setting.

        The one unit of a method that looks at the weights alone serves every degradation.
        """
        records = self._selection.records
        wanted = {"pair": pair, "degradation": degradation, "setting": setting}
        if self.method(setting) in WEIGHT_METHODS:
            if degradation is not None:
                self._number("degradation", degradation)  # refuses an unknown name
            del wanted["degradation"]
        kept = np.ones(len(records), bool)
        for kind, name in wanted.items():
            kept &= records[kind] == self._number(kind, name)
        units = [
            Unit(
                record["id"].tobytes(),
                *(int(record[kind]) for kind in ("pair", "degradation", "setting", "shard")),
            )
            for record in records[kept]
        ]
        return sorted(units, key=self.images_of)

    def images_of(self, unit: Unit) -> list[str]:
        """List the identities of a unit's images."""
        return self._selection.catalogue.entry("shard", unit.shard)["images"]

    def read(self, unit: Unit) -> UnitScores:
        """Read and check the file of a unit."""
        file = score_file(self.folder, unit.id)
        try:
            tensors, metadata = load_tensors(file)
        except (FileNotFoundError, ValueError) as problem:
            raise ValueError(f"{problem}; run the sweep again with verify") from None
        images, names, notes = (tuple(metadata[key]) for key in ("images", "names", "notes"))
        return UnitScores(images, names, tensors, notes)

    def columns(self, unit: Unit, start: int, end: int) -> np.ndarray:
        """Read the scores of some filters alone, [n, end − start]."""
        with safe_open(score_file(self.folder, unit.id), "pt") as file:
            return file.get_slice("scores")[:, start:end].numpy()

    def batches(
        self,
        pair: str | None = None,
        degradation: str | None = None,
        setting: str | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Give the images of every unit of `scores`, in the form that `attribute` takes.

        Raises
        ------
        ValueError
            If this object does not come from `faigfast.sweep`, an image changed, or the method
            looks at the weights alone.
        """
        self.refuse_weights(setting)
        if self._grid is None:
            raise ValueError("the images of an opened sweep are unknown; call faigfast.sweep again")
        for unit in self.finished(pair, degradation, setting):
            yield read_batch(self._grid.task(unit))

    def _names(self, kind: str) -> tuple[str, ...]:
        return tuple(self._numbers[kind])

    @cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        plan, catalogue = self._selection.plan, self._selection.catalogue
        return {
            # A degradation without a name is that of methods that look at the weights alone.
            kind: {name: n for n in plan[f"{kind}s"] if (name := catalogue.entry(kind, n)["name"])}
            for kind in ("pair", "degradation", "setting")
        }

    def _name(self, kind: str, name: str | None) -> str:
        names = self._names(kind)
        if name is None and len(names) == 1:
            return names[0]
        if name is None or name not in names:
            guess = hint(name, names) if isinstance(name, str) else ""
            raise ValueError(f"{kind} is {name!r}{guess}; expected one of {', '.join(names)}")
        return name

    def _number(self, kind: str, name: str | None) -> int:
        return self._numbers[kind][self._name(kind, name)]
