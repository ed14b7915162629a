"""Attribution: the scores of all filters for all images, their contrasts and rankings."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.filters.filter_data_frame import filter_data_frame
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.ranking import best_first, number_to_take, subtracted
from faigfast.integration.line_losses import barrier
from faigfast.integration.result_notes import with_result_notes
from faigfast.integration.settings import AttributionSettings
from faigfast.io.tensor_file import save_tensors
from faigfast.models.distance import Distance
from faigfast.result_display import as_html, as_text, sampling
from faigfast.result_errors import ContrastError, Stability, contrast_error, stability
from faigfast.result_merging import mergeable, merged_fields
from faigfast.result_plots import PlotKind, plot
from faigfast.result_saving import ARRAYS as ARRAYS
from faigfast.result_saving import fields_of, loaded, named_tensors

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Attribution:
    """Scores FAIG_k = Σ_{i in kernel k} |I_i| of every filter for every image.

    Parameters
    ----------
    index : FilterIndex
        Names and shapes of the layers, for F flat indices.
    by_degradation : dict of str to Tensor
        Scores [N, F] by name; their mean [1, F] if `setting.per_image` is False.
    completeness : Tensor
        [D, N], |Σ I − (L(θ) − L(θ̄))| / |L(θ) − L(θ̄)| over all interpolated tensors; the ratio
        means little if the two losses nearly agree.
    losses : Tensor
        [D, N, 2], L of the baseline and of the target.
    error : Tensor
        [D, N], estimated relative L1 error of the scores; NaN if the rule has no estimate.
    points : Tensor
        [D, N], int64, points of the line at which gradients were taken.
    scored : Tensor
        [F], bool, the filters that `parameters` selects; the others have scores of 0 and are never
        ranked.
    setting : AttributionSettings
        Settings of the computation.
    notes : tuple of str
        Every fallback with its reason, cautions (`faigfast.integration.cautions`: barrier, gain,
        completeness, contrast), what cannot be ranked, and how many images did not reach `tol`.
    zero_gradient : tuple of str
        Scored layers that differ between the networks, but whose gradient is 0 in every image.
    line : Tensor
        [D, N, P, 2], float64, α and loss at the points, in ascending order of α; NaN where an image
        took fewer than P points. P is 0 for rivals without losses and files of older versions.
    distance : Distance
        ‖θ − θ̄‖ / ‖θ̄‖ of the networks and of each layer; NaN and {} if a file does not hold it.
    mean_error : Tensor
        [D, F], float32, estimated signed error of the mean scores; empty if the rule has none.

    Notes
    -----
    Source: Xie et al., "Finding discriminative filters for specific degradations in blind
    super-resolution", NeurIPS 2021, equations 6 and 7.
    """

    index: FilterIndex
    by_degradation: dict[str, Tensor]
    completeness: Tensor
    losses: Tensor
    error: Tensor
    points: Tensor
    scored: Tensor
    setting: AttributionSettings
    notes: tuple[str, ...] = field(default=())
    zero_gradient: tuple[str, ...] = ()
    line: Tensor = field(default_factory=lambda: torch.empty(0))
    distance: Distance = field(default_factory=Distance)
    mean_error: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        """Replace the notes that depend on all images."""
        if not self.line.numel():
            object.__setattr__(self, "line", self.losses.new_empty(*self.losses.shape[:2], 0, 2))
        object.__setattr__(self, "notes", with_result_notes(self.notes, self))

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        """Write a summary with losses, errors and top layers, which notebooks show."""
        return as_html(self)

    @property
    def sampling(self) -> str:
        """Rule, tolerance and points in words, such as "midpoint to tol 0.01, 9 to 27 points"."""
        return sampling(self)

    @property
    def reached(self) -> Tensor:
        """[D, N], bool, whether the estimated error is at most `tol`; True without `tol`."""
        tol = self.setting.tol
        return self.error <= tol if tol is not None else torch.ones_like(self.error).bool()

    @property
    def barrier(self) -> Tensor:
        """[D, N], height of the loss above the chord of the line; `line_losses.barrier` defines it.

        NaN for rivals without losses between the ends (all but "signed") and older files.
        """
        return barrier(self.line, self.losses)

    @property
    def degradations(self) -> tuple[str, ...]:
        """Names of the degradations; ("lq",) if only one was given, without a name."""
        return tuple(self.by_degradation)

    @property
    def images(self) -> int:
        """Number N of images."""
        return self.losses.shape[1]

    @property
    def evaluations(self) -> int:
        """Points of the line evaluated for each image; with `tol` the maximum over images."""
        return int(self.points.max())

    @property
    def backend(self) -> str:
        """The backend that computed the scores."""
        return self.setting.backend

    @property
    def precision(self) -> str:
        """The precision in which the networks ran."""
        return self.setting.precision

    def scores(self, name: str | None = None) -> Tensor:
        """Scores of a degradation.

        Parameters
        ----------
        name : str, optional
            Optional if there is only one degradation.

        Returns
        -------
        Tensor
            [N, F], not negative except for signed sums, in the networks' precision or
            float32, whichever is wider.

        Raises
        ------
        ValueError
            If there is no such degradation, or only the mean over images was kept.
        """
        if not self.setting.per_image:
            raise ValueError("the scores of single images were not kept; mean() has their mean")
        return self._scores_of(name)

    def mean(self, name: str | None = None) -> Tensor:
        """Mean over images of a degradation's scores: [F], in float64."""
        return self._scores_of(name).double().mean(0)

    def _scores_of(self, name: str | None, argument: str = "degradation") -> Tensor:
        if name is None and len(self.degradations) == 1:
            name = self.degradations[0]
        if not isinstance(name, str) or name not in self.by_degradation:
            kind = ValueError if isinstance(name, str | int | None) else TypeError
            raise kind(f"{argument} is {name!r}; expected one of {self.degradations}")
        return self.by_degradation[name]

    def contrast(self, a: str | None, against: str | Sequence[str] | None = None) -> Tensor:
        """Mean over images of FAIG(x_a) − FAIG(x_b).

        Parameters
        ----------
        a : str
            Degradation; may be None if there is only one.
        against : str or sequence of str, optional
            Degradations whose mean is subtracted; None: all others, or none for a rival that
            is not contrasted. With one degradation or an empty sequence, the contrast is the mean
            score.

        Returns
        -------
        Tensor
            [F], in float64. Two degradations' contrasts are each other's negatives.

        Raises
        ------
        ValueError
            If there is no such degradation.
        """
        mean, others = self.mean(a), self._others(a, against)
        if others:
            means = [self._scores_of(name, "against").double().mean(0) for name in others]
            mean = mean - torch.stack(means).mean(0)
        return mean

    def _others(self, a: str | None, against: str | Sequence[str] | None) -> list[str]:
        """List the degradations that a contrast subtracts."""
        return subtracted(a, against, self.degradations, self.setting.contrasted)

    def contrast_error(
        self, a: str | None, against: str | Sequence[str] | None = None
    ) -> ContrastError:
        """Estimate the relative L1 error of `contrast`, from points and from images.

        Arguments and errors as `contrast`; `faigfast.result_errors` says what is estimated.
        """
        return contrast_error(self, a, against)

    def stability(
        self, a: str | None, fraction: float = 0.01, against: str | Sequence[str] | None = None
    ) -> Stability:
        """Estimate the share of `top` that a ranking without an error has in common.

        Arguments and errors as `top`; `faigfast.result_errors` says what is estimated.
        """
        return stability(self, a, fraction, against)

    def ranking(self, a: str | None, against: str | Sequence[str] | None = None) -> FilterSet:
        """Rank all scored filters by their contrast for one degradation.

        Parameters
        ----------
        a, against
            As in `contrast`.

        Returns
        -------
        FilterSet
            Best first; ties in the order of the index.

        Raises
        ------
        ValueError
            If there is no such degradation, or all its scores or contrasts are exactly 0.
        """
        name, others = a if a is not None else self.degradations[0], self._others(a, against)
        candidates = self.scored.nonzero().flatten()
        ranked = best_first(candidates, self.mean(a), self.contrast(a, against), name, others)
        total, pair = len(self.index), (self.setting.baseline, self.setting.target)
        return FilterSet(ranked, total, self.index.fingerprint, *pair, self.index)

    def top(
        self,
        a: str | None,
        fraction: float | None = None,
        against: str | Sequence[str] | None = None,
        *,
        n: int | None = None,
    ) -> FilterSet:
        """Take the filters of highest contrast for one degradation.

        Parameters
        ----------
        a, against
            As in `contrast`.
        fraction : float, optional
            Share of all F filters in (0, 1]; rounded down, at least one filter.
        n : int, optional
            Number of filters, in place of a fraction.

        Returns
        -------
        FilterSet
            Best first; ties in the order of the index.

        Raises
        ------
        TypeError
            If neither or both of fraction and n are given, or one is no number.
        ValueError
            If the fraction is outside (0, 1], or it or n asks for more filters than were scored, or
            all scores or contrasts are exactly 0.
        """
        count = number_to_take(fraction, n, len(self.index), int(self.scored.sum()))
        return self.ranking(a, against)[:count]

    def plot(
        self,
        kind: PlotKind = "distribution",
        degradation: str | None = None,
        *,
        against: str | Sequence[str] | None = None,
        fraction: float | None = None,
        layer: str | int | None = None,
        n: int | None = None,
        baseline: nn.Module | None = None,
        target: nn.Module | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw a picture on matplotlib axes.

        Parameters
        ----------
        kind : {"distribution", "line", "layer", "kernels"}
            Number of the best filters in each layer; mean loss along the line between the networks;
            contrast of every filter of one layer; best kernels in both networks, and their change.
        degradation : str, optional
            None: all in "distribution" and "line", the only one in the other kinds.
        against
            As in `contrast`; not for "line".
        fraction : float, optional
            Of "distribution": share of all filters; default 0.01.
        layer : str or int, optional
            Of "layer": its name or number; None: the layer of the best filter.
        n : int, optional
            Of "kernels": their number; default 8.
        baseline, target : nn.Module, optional
            Of "kernels", required there: the networks of the result.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; None: those of a new figure of pyplot.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If an option does not belong to the kind, or `baseline` or `target` is missing.
        ValueError
            If the kind, degradation or layer is unknown, the networks are others, or as `top`.
        """
        options = {
            "against": against, "fraction": fraction, "layer": layer, "n": n,
            "baseline": baseline, "target": target,
        }  # fmt: skip
        return plot(self, kind, degradation, ax, options)

    def merge(self, others: "Attribution | Iterable[Attribution]") -> "Attribution":
        """Join the images of results with equal settings, in order; objectives compare by name.

        Raises
        ------
        TypeError
            If `others` holds anything but results.
        ValueError
            If a result is of other networks, degradations or settings.
        """
        return replace(self, **merged_fields(mergeable(self, others)))

    def to_frame(self) -> "pandas.DataFrame":
        """One row per degradation and scored filter, with its mean score and contrast.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        names = self.degradations
        columns = {n: {"score": self.mean(n), "contrast_score": self.contrast(n)} for n in names}
        return filter_data_frame(self.scored.nonzero().flatten(), self.index, columns)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give everything as named tensors and metadata in JSON types, for `from_tensors`."""
        return named_tensors(self)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> "Attribution":
        """Rebuild an attribution from what `to_tensors` gave.

        Raises
        ------
        ValueError
            If the tensors and the metadata are not those of an attribution.
        """
        return cls(**fields_of(tensors, metadata))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, with a digest of its content."""
        save_tensors(path, *self.to_tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Attribution":
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds no attribution, or its content changed since it was written.
        """
        return cls(**loaded(path))
