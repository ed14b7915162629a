"""Rankings of filters over the steps of one training."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.filters.filter_set import FilterSet
from faigfast.io.pandas_module import pandas_module
from faigfast.io.tensor_file import load_tensors, save_tensors
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas

FORMAT = "faigfast rankings 1"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Attribution of the network that a training had reached.

    Parameters
    ----------
    step : int
        Number of steps that the network had taken.
    result : Attribution
        With the mean scores over the images alone, [1, F] a degradation.
    seconds : float
        Time that the attribution took.
    elapsed : float
        Seconds from the first step to the end of the attribution, all attributions included.
    """

    step: int
    result: Attribution
    seconds: float
    elapsed: float

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give everything as named tensors and metadata in JSON types."""
        tensors, metadata = self.result.to_tensors()
        times = {"step": self.step, "seconds": self.seconds, "elapsed": self.elapsed}
        return tensors, {**times, "result": metadata}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> "Snapshot":
        """Rebuild a snapshot from what `to_tensors` gave.

        Raises
        ------
        ValueError
            If the tensors and the metadata are not those of a snapshot.
        """
        try:
            step, seconds, elapsed = (metadata[name] for name in ("step", "seconds", "elapsed"))
            result = Attribution.from_tensors(tensors, metadata["result"])
            return cls(int(step), result, float(seconds), float(elapsed))
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"{type(problem).__name__} {problem}") from None


@dataclass(frozen=True, eq=False)
class Rankings:
    """Snapshots of one training, in the order of its steps.

    Parameters
    ----------
    snapshots : tuple of Snapshot
        By ascending step.
    fraction : float
        Share of all filters in a top set, in (0, 1].
    against : str or sequence of str, optional
        As in `Attribution.contrast`.
    """

    snapshots: tuple[Snapshot, ...]
    fraction: float = 0.01
    against: str | Sequence[str] | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of the snapshots."""
        return tuple(snapshot.step for snapshot in self.snapshots)

    @property
    def seconds(self) -> float:
        """Time that all attributions took together, in seconds."""
        return sum(snapshot.seconds for snapshot in self.snapshots)

    def at(self, step: int | None = None) -> Snapshot:
        """Give the snapshot of a step; None: the last one.

        Raises
        ------
        ValueError
            If there is no snapshot, or none of this step.
        """
        if not self.snapshots:
            raise ValueError("no snapshot was taken yet; expected one, after `every` steps")
        if step is None:
            return self.snapshots[-1]
        if step not in self.steps:
            raise ValueError(f"step is {step!r}; expected one of {', '.join(map(str, self.steps))}")
        return self.snapshots[self.steps.index(step)]

    def top(self, degradation: str | None = None, step: int | None = None) -> FilterSet:
        """Take the filters of highest contrast for one degradation in one snapshot.

        Parameters
        ----------
        degradation : str, optional
            May be None if there is only one.
        step : int, optional
            Of a snapshot; None: the last one.

        Returns
        -------
        FilterSet
            Best first, `fraction` of all filters.

        Raises
        ------
        ValueError
            If there is no such snapshot or degradation, or as `Attribution.top`.
        """
        return self.at(step).result.top(degradation, self.fraction, self.against)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per snapshot and degradation.

        Returns
        -------
        pandas.DataFrame
            Columns step, degradation, loss_baseline and loss_target (means over the images),
            previous_common_fraction and last_common_fraction (share of the top set that the
            previous and the last snapshot's top set hold too; NaN where there is no previous one or
            no ranking), barrier_median (over the images), seconds and share: all attributions so
            far, of the time since the first step.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_module()
        names = self.snapshots[0].result.degradations if self.snapshots else ()
        tops = {name: [self._indices(s, name) for s in self.snapshots] for name in names}
        spent = accumulate(snapshot.seconds for snapshot in self.snapshots)
        rows = [
            {
                "step": snapshot.step,
                "degradation": name,
                "loss_baseline": float(snapshot.result.losses[place, :, 0].mean()),
                "loss_target": float(snapshot.result.losses[place, :, 1].mean()),
                "previous_common_fraction": _common(*tops[name][max(number - 1, 0) : number + 1]),
                "last_common_fraction": _common(tops[name][-1], tops[name][number]),
                "barrier_median": float(snapshot.result.barrier[place].nanmedian()),
                "seconds": snapshot.seconds,
                "share": seconds / snapshot.elapsed,
            }
            for number, (snapshot, seconds) in enumerate(zip(self.snapshots, spent, strict=True))
            for place, name in enumerate(names)
        ]
        return pandas.DataFrame(rows, columns=COLUMNS)

    def _indices(self, snapshot: Snapshot, name: str) -> Tensor | None:
        """Flat indices of a top set; None where all scores or contrasts are 0."""
        try:
            return snapshot.result.top(name, self.fraction, self.against).indices
        except ValueError:
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all snapshots to one safetensors file, with a digest of its content.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        metadata = []
        for snapshot in self.snapshots:
            own, described = snapshot.to_tensors()
            tensors |= {f"{snapshot.step}/{key}": value for key, value in own.items()}
            metadata.append(described)
        against = self.against
        against = against if against is None or isinstance(against, str) else list(against)
        fields = {"format": FORMAT, "fraction": self.fraction, "against": against}
        save_tensors(path, tensors, {**fields, "snapshots": metadata})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Rankings":
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds no rankings, or its content changed since it was written.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{path} is of the format {metadata.get('format')!r}; expected {FORMAT!r}"
            )
        by_step: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            step, _, name = key.partition("/")
            by_step.setdefault(step, {})[name] = value
        snapshots = (
            Snapshot.from_tensors(by_step.get(str(described["step"]), {}), described)
            for described in metadata["snapshots"]
        )
        return cls(tuple(snapshots), metadata["fraction"], metadata["against"])


COLUMNS = [
    "step", "degradation", "loss_baseline", "loss_target", "previous_common_fraction",
    "last_common_fraction", "barrier_median", "seconds", "share",
]  # fmt: skip


def _common(one: Tensor | None, other: Tensor | None = None) -> float:
    """Share of a set of flat indices that another set has too; NaN where one is missing."""
    if one is None or other is None:
        return float("nan")
    return float(torch.isin(other, one).double().mean())
