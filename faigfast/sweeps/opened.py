"""Sweep: the results of a sweep, with means, contrasts and other reductions of its scores."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.ranking import best_first, number_to_take
from faigfast.integration.settings import LINE_METHODS, WEIGHT_METHODS
from faigfast.sweeps import reductions, tables
from faigfast.sweeps.sweep_files import SweepFiles
from faigfast.sweeps.units import Unit

if TYPE_CHECKING:
    import pandas


class Sweep(SweepFiles):
    """Results of a sweep; files are read one after the other, when they are asked for.

    Where the plan has one pair, degradation or setting, its name may be left out. A sweep that is
    not finished gives what is there.

    Parameters
    ----------
    folder : path-like
        Output of `faigfast.sweep`.
    grid : Grid, optional
        The plan with its files, which `batches` needs.

    Raises
    ------
    FileNotFoundError
        If there is no sweep.
    ValueError
        If its plan is damaged.
    """

    def mean(
        self,
        pair: str | None = None,
        degradation: str | None = None,
        setting: str | None = None,
    ) -> Tensor:
        """Mean over images of the scores, [F] in float64.

        Raises
        ------
        ValueError
            If nothing is finished, or as `scores`.
        """
        return reductions.mean(self, self.finished(pair, degradation, setting))

    def contrast(
        self,
        a: str | None = None,
        against: str | Sequence[str] | None = None,
        *,
        pair: str | None = None,
        setting: str | None = None,
    ) -> Tensor:
        """Mean over images of the scores of degradation a minus the others', [F] in float64.

        Only images that are finished in all of the degradations count.

        Parameters
        ----------
        a : str, optional
            Degradation.
        against : str or sequence of str, optional
            Degradations whose mean is subtracted; None: all others, or none for rivals that are
            ranked by the score itself. Empty: nothing is subtracted. From scores of the weights
            alone, which serve all degradations, nothing is ever subtracted.
        pair, setting : str, optional
            As in `scores`.

        Raises
        ------
        ValueError
            If a name is unknown, or no image is finished in all of the degradations.
        """
        if self.method(setting) in WEIGHT_METHODS:
            return self.mean(pair, a, setting)
        return reductions.weighted(self, self._parts(a, against, pair, setting), None)[0]

    def top(
        self,
        a: str | None = None,
        fraction: float | None = None,
        against: str | Sequence[str] | None = None,
        *,
        n: int | None = None,
        pair: str | None = None,
        setting: str | None = None,
    ) -> FilterSet:
        """Take the filters of highest contrast, as `Attribution.top`."""
        index = self.index(pair)
        name = self._name("degradation", a)
        contrast = self.contrast(a, against, pair=pair, setting=setting)
        units = self.finished(pair, name, setting)
        candidates = self._scored(units).nonzero().flatten()
        others = self._others(name, against, setting)
        count = number_to_take(fraction, n, len(index), len(candidates))
        ranked = best_first(candidates, self.mean(pair, name, setting), contrast, name, others)
        content = self._selection.catalogue.entry("pair", self._number("pair", pair))
        baseline, target = content["fingerprints"]
        return FilterSet(ranked[:count], len(index), index.fingerprint, baseline, target, index)

    def quantiles(
        self,
        q: Sequence[float],
        pair: str | None = None,
        degradation: str | None = None,
        setting: str | None = None,
        *,
        memory: int = reductions.MEMORY,
    ) -> Tensor:
        """Quantiles over images of the scores of every filter, exact.

        Parameters
        ----------
        q : sequence of float
            In [0, 1].
        pair, degradation, setting : str, optional
            As in `scores`.
        memory : int
            Bytes for the scores of some filters of all images; less takes more passes.

        Returns
        -------
        Tensor
            [len(q), F], float64, with linear interpolation.

        Raises
        ------
        ValueError
            If q is out of range, the method looks at the weights alone, or as `mean`.
        """
        self.refuse_weights(setting)
        return reductions.quantiles(self, self.finished(pair, degradation, setting), q, memory)

    def overlap(
        self,
        a: str | None = None,
        fraction: float = 0.01,
        against: str | Sequence[str] | None = None,
        *,
        between: str = "setting",
        pair: str | None = None,
        setting: str | None = None,
    ) -> "pandas.DataFrame":
        """Share that the top filters of two settings, or two pairs, have in common.

        Parameters
        ----------
        a, against
            As in `contrast`.
        fraction : float
            Share of all filters that is compared.
        between : {"setting", "pair", "degradation"}
            What rows and columns are; its own argument is left out.
        pair, setting : str, optional
            As in `scores`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            As `top`.
        """
        return tables.overlap_table(self, between, a, fraction, against, pair, setting)

    def stability(
        self,
        a: str | None = None,
        fraction: float = 0.01,
        against: str | Sequence[str] | None = None,
        *,
        pair: str | None = None,
        setting: str | None = None,
        counts: Sequence[int] | None = None,
        draws: int = 50,
        seed: int = 0,
    ) -> "pandas.DataFrame":
        """How much of the top filters of all images smaller samples of images find.

        Images are drawn with replacement. One row per number of images: `images`, and `overlap`,
        the median share of the top filters in common, with `low` and `high`, the interval that
        95 % of the draws are in.

        Parameters
        ----------
        a, fraction, against, pair, setting
            As in `overlap`.
        counts : sequence of int, optional
            Numbers of images; by default powers of two up to all.
        draws : int
            Samples for each number.
        seed : int
            Of the samples.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            As `top`, or if the method looks at the weights alone.
        """
        self.refuse_weights(setting)
        parts = self._parts(a, against, pair, setting)
        scored = self._scored(parts[0][1])
        return tables.stability_table(self, parts, scored, fraction, counts, draws, seed)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file for each pair, degradation and setting, one row an image.

        Columns: pair, degradation, setting, image, name, loss_baseline, loss_target, completeness,
        error, barrier, and scores, a list of F numbers. Scores of the weights alone give one row a
        degradation, without image and name. `pyarrow.dataset.dataset(path)` and duckdb read the
        folder as one table.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        ValueError
            If a file is damaged.
        """
        tables.write_parquet(self, Path(path))

    def _parts(
        self, a: str | None, against: Any, pair: str | None, setting: str | None
    ) -> list[tuple[float, list[Unit]]]:
        """Give the units of a contrast with their factors."""
        name = self._name("degradation", a)
        others = self._others(name, against, setting)
        parts = [(1.0, self.finished(pair, name, setting))]
        parts += [(-1.0 / len(others), self.finished(pair, other, setting)) for other in others]
        return parts

    def _scored(self, units: Sequence[Unit]) -> Tensor:
        """Say which filters have scores, [F] bool."""
        if not units:
            raise ValueError("no unit is finished for this pair, degradation and setting")
        return self.read(units[0]).tensors["scored"]

    def _others(
        self, a: str, against: str | Sequence[str] | None, setting: str | None
    ) -> list[str]:
        method = self.method(setting)
        if method in WEIGHT_METHODS or (against is None and method not in LINE_METHODS):
            return []
        if against is None:
            return [name for name in self.degradations if name != a]
        return [against] if isinstance(against, str) else list(against)


def open_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Open the results of a sweep, finished or not, without its images and networks.

    Parameters
    ----------
    path : path-like
        Output of `faigfast.sweep`.

    Raises
    ------
    FileNotFoundError
        If there is no sweep.
    ValueError
        If its plan is damaged.
    """
    return Sweep(path)
