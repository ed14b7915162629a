"""Ablation: losses of the target where one filter, or one output channel, is the baseline's."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from faigfast.analysis.evaluation import means_and_intervals
from faigfast.filters.filter_data_frame import filter_data_frame
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.ranking import best_first, number_to_take
from faigfast.io.pandas_module import pandas_module
from faigfast.io.tensor_file import load_tensors, save_tensors
from faigfast.io.text_table import counted

if TYPE_CHECKING:
    import pandas

KIND = "faigfast ablation"


@dataclass(frozen=True, eq=False)
class Ablation:
    """What each filter does alone: losses of the target with it put back to the baseline's.

    Parameters
    ----------
    index : FilterIndex
        All filters of the network.
    by : {"kernel", "channel"}
        What goes back at a time.
    numbers : Tensor
        [K], flat numbers of the ablated filters; of channels the flat number of the first filter.
    losses : dict of str to Tensor
        Degradation to [N, K], float64, the loss of each image under each ablation.
    target_losses : dict of str to Tensor
        Degradation to [N], the loss of the target as it is.
    squared_errors : dict of str to tuple of Tensor
        Beside another loss, degradation to ([N, K], [N]): squared errors of the ablated networks
        and of the target. Empty where the output is no image like the ground truth.
    objective : str
        Name of the loss.
    fingerprints : tuple of str
        Of baseline and target.
    notes : tuple of str
        What ran slowly, and why.
    """

    index: FilterIndex
    by: str
    numbers: Tensor
    losses: dict[str, Tensor]
    target_losses: dict[str, Tensor]
    squared_errors: dict[str, tuple[Tensor, Tensor]]
    objective: str
    fingerprints: tuple[str, str]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        unit = {"kernel": "filter", "channel": "output channel"}[self.by]
        images = counted(len(next(iter(self.losses.values()))), "image")
        names = ", ".join(self.degradations)
        return f"Ablation({counted(len(self.numbers), unit)}, {images}, {names})"

    @property
    def degradations(self) -> tuple[str, ...]:
        """Names of the degradations."""
        return tuple(self.losses)

    def change(self, degradation: str | None = None) -> Tensor:
        """Change of the loss of every image by every ablation, [N, K], float64.

        Positive where the target loses by it: the filter helps on this degradation.
        """
        name = self._name(degradation)
        return self.losses[name] - self.target_losses[name][:, None]

    def psnr_change(self, degradation: str | None = None) -> Tensor:
        """Change of PSNR of every image by every ablation, [N, K], in dB; negative: it loses.

        Of all pixels, without rounding to 8 bit, which would hide what one filter does. NaN where
        the output is no image like the ground truth.
        """
        name = self._name(degradation)
        ablated, target = self.losses[name], self.target_losses[name]
        if self.objective != "squared_error":
            if name not in self.squared_errors:
                return torch.full_like(ablated, math.nan)
            ablated, target = self.squared_errors[name]
        return 10 * torch.log10(target[:, None] / ablated)

    def contrast(self, a: str | None = None, against: str | Sequence[str] | None = None) -> Tensor:
        """Mean change of the loss on `a` less the mean over others, [K], as FAIG's contrast.

        Parameters
        ----------
        a : str, optional
            A degradation; may be left out where there is one.
        against : str or sequence of str, optional
            None: all others; an empty sequence: the change on `a` alone.
        """
        name = self._name(a)
        others = [d for d in self.degradations if d != name] if against is None else against
        others = [others] if isinstance(others, str) else list(others)
        scores = self.change(name).mean(0)
        if others:
            scores = scores - torch.stack([self.change(d).mean(0) for d in others]).mean(0)
        return scores

    def top(
        self,
        a: str | None = None,
        fraction: float | None = None,
        against: str | Sequence[str] | None = None,
        *,
        n: int | None = None,
    ) -> FilterSet:
        """Take the filters whose ablation costs most, best first; of ablated kernels alone.

        Parameters
        ----------
        a, against
            As in `contrast`.
        fraction, n : float or int
            Share of all F filters, or number of filters; one of them.

        Raises
        ------
        ValueError
            If channels were ablated, too few filters, or all changes or contrasts are exactly 0.
        """
        if self.by != "kernel":
            raise ValueError(f"by is {self.by!r}; expected an ablation of kernels")
        count = number_to_take(fraction, n, len(self.index), len(self.numbers))
        name, contrast = self._name(a), self.contrast(a, against)
        places = torch.arange(len(contrast))
        order = best_first(places, self.change(name).mean(0), contrast, name, self.degradations)
        return FilterSet(
            self.numbers[order[:count]],
            baseline=self.fingerprints[0],
            target=self.fingerprints[1],
            filter_index=self.index,
        )

    def to_frame(self) -> "pandas.DataFrame":
        """Give one row an ablation, degradation and metric: the mean over images.

        Columns: flat, layer, out, in (of kernels), degradation, metric, value, ci95_low, ci95_high;
        metrics: loss_change, psnr_change (dB). Intervals are NaN for one image.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        filters = filter_data_frame(self.numbers, self.index)
        if self.by == "channel":
            filters = filters.drop(columns="in")
        parts = []
        for name in self.degradations:
            changes = {"loss_change": self.change(name), "psnr_change": self.psnr_change(name)}
            for metric, values in changes.items():
                mean, half = means_and_intervals(values)
                ends = {"ci95_low": (mean - half).numpy(), "ci95_high": (mean + half).numpy()}
                parts.append(
                    filters.assign(degradation=name, metric=metric, value=mean.numpy(), **ends)
                )
        return pandas_module().concat(parts, ignore_index=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all."""
        tensors = {"numbers": self.numbers}
        for name in self.degradations:
            tensors[f"losses/{name}"] = self.losses[name]
            tensors[f"target_losses/{name}"] = self.target_losses[name]
            if name in self.squared_errors:
                tensors[f"squared_errors/{name}"], tensors[f"target_squared_errors/{name}"] = (
                    self.squared_errors[name]
                )
        save_tensors(
            path,
            tensors,
            {
                "kind": KIND,
                "by": self.by,
                "degradations": list(self.degradations),
                "layers": list(self.index.layers),
                "shapes": [list(shape) for shape in self.index.shapes],
                "objective": self.objective,
                "fingerprints": list(self.fingerprints),
                "notes": list(self.notes),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ablation":
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, it is damaged, or holds something else.
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != KIND:
            raise ValueError(f"{os.fspath(path)} is no ablation; expected a file of Ablation.save")
        names = about["degradations"]

        def by_name(part: str) -> Mapping[str, Tensor]:
            return {n: tensors[f"{part}/{n}"] for n in names if f"{part}/{n}" in tensors}

        errors, target_errors = by_name("squared_errors"), by_name("target_squared_errors")
        return cls(
            FilterIndex(tuple(about["layers"]), tuple(map(tuple, about["shapes"]))),
            about["by"],
            tensors["numbers"],
            dict(by_name("losses")),
            dict(by_name("target_losses")),
            {name: (errors[name], target_errors[name]) for name in errors},
            about["objective"],
            tuple(about["fingerprints"]),
            tuple(about["notes"]),
        )

    def _name(self, degradation: str | None) -> str:
        if degradation is None and len(self.losses) == 1:
            return self.degradations[0]
        if degradation not in self.losses:
            raise ValueError(
                f"degradation is {degradation!r}; expected one of {', '.join(self.degradations)}"
            )
        return str(degradation)
