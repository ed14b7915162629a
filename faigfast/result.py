"""Attribution: the scores of all filters for all images, and what follows from them."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from faigfast.filters.filter_set import FilterIndex, FilterSet
from faigfast.integration.settings import Setting, differences
from faigfast.io.atomic import atomic_write
from faigfast.io.text_table import counted

if TYPE_CHECKING:
    import pandas

FORMAT = "faigfast attribution 2"
ARRAYS = ("completeness", "losses", "error", "points", "scored")  # fields that are one tensor each


@dataclass(frozen=True, eq=False)
class Attribution:
    """Scores FAIG_k = Σ_{i in kernel k} |I_i| of every filter for every image.

    Parameters
    ----------
    index : FilterIndex
        Names and shapes behind the F flat indices.
    by_degradation : dict of str to Tensor
        Scores [N, F] under each name; their mean [1, F] where `setting.per_image` is False.
    completeness : Tensor
        [D, N], |Σ I − (L(θ) − L(θ̄))| / |L(θ) − L(θ̄)| over all interpolated tensors; the ratio
        means little where the two losses nearly agree.
    losses : Tensor
        [D, N, 2], L of the baseline and of the target.
    error : Tensor
        [D, N], estimated relative L1 error of the scores; NaN where the rule gives none.
    points : Tensor
        [D, N], int64, points of the line at which gradients were taken.
    scored : Tensor
        [F], bool, the filters that `parameters` selects; the others have scores of 0 and are never
        ranked.
    setting : Setting
        How it was computed.
    notes : tuple of str
        Every fallback and why, and for how many images `tol` was not reached.

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
    setting: Setting
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Say anew for all images whether `tol` was reached."""
        notes = [note for note in self.notes if not note.startswith("tol ")]
        missed = ~self.reached  # [D, N]
        if missed.any():
            notes.append(
                f"tol {self.setting.tol:g} was not reached by {int(missed.any(0).sum())} of "
                f"{counted(self.images, 'image')}: estimated error up to "
                f"{float(self.error[missed].max()):.1e}; more steps allow more points"
            )
        object.__setattr__(self, "notes", tuple(notes))

    def __repr__(self) -> str:
        worst = f"worst completeness error {float(self.completeness.max()):.1e}"
        known = self.error[self.error.isfinite()]
        if len(known):
            worst += f", worst estimated error {float(known.max()):.1e}"
        return (
            f"Attribution({', '.join(self.degradations)}: {counted(self.images, 'image')}, "
            f"{counted(len(self.index), 'filter')}; {self.sampling}, {self.backend} "
            f"{self.precision}; {worst})"
        )

    @property
    def sampling(self) -> str:
        """Rule, tolerance and points in words, such as "midpoint to tol 0.01, 9 to 27 points"."""
        used = self.setting
        least, most = int(self.points.min()), int(self.points.max())
        points = counted(most, "point") if least == most else f"{least} to {most} points"
        if used.tol is not None:
            return f"{used.rule} to tol {used.tol:g}, {points}"
        return f"{used.rule}{f' {used.steps} emulated' if used.emulate else ''}, {points}"

    @property
    def reached(self) -> Tensor:
        """[D, N], bool, whether the estimated error is at most `tol`; True where none was given."""
        if self.setting.tol is None:
            return torch.ones_like(self.error, dtype=torch.bool)
        return self.error <= self.setting.tol

    @property
    def degradations(self) -> tuple[str, ...]:
        """Names, ("lq",) where only one was given."""
        return tuple(self.by_degradation)

    @property
    def images(self) -> int:
        """Number N of images."""
        return self.losses.shape[1]

    @property
    def evaluations(self) -> int:
        """Points of the line evaluated for each image; with `tol` the most for any."""
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
            May be left out where there is one degradation.

        Returns
        -------
        Tensor
            [N, F], not negative but for signed sums, in the precision of the networks, at least
            float32.

        Raises
        ------
        ValueError
            If there is no such degradation, or only the mean over images was kept.
        """
        if not self.setting.per_image:
            raise ValueError("the scores of single images were not kept; mean() has their mean")
        return self._of(name)

    def mean(self, name: str | None = None) -> Tensor:
        """Mean over images of a degradation's scores [F], in float64; as `scores` otherwise."""
        return self._of(name).double().mean(0)

    def _of(self, name: str | None) -> Tensor:
        if name is None and len(self.degradations) == 1:
            name = self.degradations[0]
        if name not in self.by_degradation:
            raise ValueError(f"degradation is {name!r}; expected one of {self.degradations}")
        return self.by_degradation[name]

    def contrast(self, a: str | None, against: str | Sequence[str] | None = None) -> Tensor:
        """Mean over images of FAIG(x_a) − FAIG(x_b).

        Parameters
        ----------
        a : str
            Degradation; None will do where there is one.
        against : str or sequence of str, optional
            The others, whose mean is taken; None: all other degradations, none of a rival that
            is not contrasted. With one degradation, or an empty sequence, the contrast is its mean
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
        mean = self.mean(a)
        a = a if a is not None else self.degradations[0]
        if against is None:
            others = [d for d in self.degradations if d != a and self.setting.contrasted]
        else:
            others = [against] if isinstance(against, str) else list(against)
        if others:
            mean = mean - torch.stack([self.mean(name) for name in others]).mean(0)
        return mean

    def ranking(self, a: str | None, against: str | Sequence[str] | None = None) -> FilterSet:
        """Rank all scored filters by how much they serve one degradation.

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
            If there is no such degradation.
        """
        candidates = self.scored.nonzero().flatten()
        values = self.contrast(a, against)[candidates]
        order = torch.argsort(values, descending=True, stable=True)
        return FilterSet(
            candidates[order],
            len(self.index),
            self.index.fingerprint,
            self.setting.baseline,
            self.setting.target,
        )

    def top(
        self,
        a: str | None,
        fraction: float,
        against: str | Sequence[str] | None = None,
    ) -> FilterSet:
        """Take the filters that serve one degradation most.

        Parameters
        ----------
        a, against
            As in `contrast`.
        fraction : float
            Share of all F filters in (0, 1]; rounded down, at least one filter.

        Returns
        -------
        FilterSet
            Best first; ties in the order of the index.

        Raises
        ------
        ValueError
            If the fraction is outside (0, 1] or asks for more filters than were scored.
        """
        if isinstance(fraction, bool) or not isinstance(fraction, Real):
            raise TypeError(f"fraction is {fraction!r}; expected a number in (0, 1]")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction is {fraction!r}; expected a number in (0, 1]")
        # The decimal that was written, so that 0.29 of 100 is 29.
        count = max(1, int(Fraction(str(fraction)) * len(self.index)))
        scored = int(self.scored.sum())
        if count > scored:
            raise ValueError(f"fraction {fraction} asks for {count} filters; {scored} were scored")
        return self.ranking(a, against)[:count]

    def merge(self, others: "Attribution | Iterable[Attribution]") -> "Attribution":
        """Join the images of results of one setting, in order; objectives count by their name.

        Raises
        ------
        TypeError
            If something is not a result.
        ValueError
            If a result is of other networks, degradations or settings.
        """
        parts = [self, *([others] if isinstance(others, Attribution) else others)]
        for part in parts[1:]:
            if not isinstance(part, Attribution):
                raise TypeError(f"others holds a {type(part).__name__}; expected an Attribution")
            for name in ("index", "degradations", "setting"):
                one, other = getattr(self, name), getattr(part, name)
                if one != other:
                    raise ValueError(
                        f"results of different {name} cannot be merged: {differences(one, other)}"
                    )
            if not torch.equal(part.scored, self.scored):
                raise ValueError("results that score different filters cannot be merged")
        return replace(
            self,
            by_degradation={name: _joined(parts, name) for name in self.degradations},
            completeness=torch.cat([part.completeness for part in parts], dim=1),
            losses=torch.cat([part.losses for part in parts], dim=1),
            error=torch.cat([part.error for part in parts], dim=1),
            points=torch.cat([part.points for part in parts], dim=1),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )

    def to_frame(self) -> "pandas.DataFrame":
        """One row a scored filter: flat, layer, out, in, then mean score and contrast by name.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("a table needs pandas: pip install 'faigfast[report]'") from None
        flat = self.scored.nonzero().flatten()
        layers, rows, columns = self.index.locate_all(flat)
        table: dict[str, Any] = {"flat": flat, "layer": layers, "out": rows, "in": columns}
        for name in self.degradations:
            table[f"score_{name}"] = self.mean(name)[flat]
            table[f"contrast_{name}"] = self.contrast(name)[flat]
        return pandas.DataFrame(table)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file."""
        arrays = {f"scores.{i}": v.contiguous() for i, v in enumerate(self.by_degradation.values())}
        arrays |= {name: getattr(self, name).contiguous() for name in ARRAYS}
        metadata = {
            "format": FORMAT,
            "degradations": list(self.degradations),
            "layers": self.index.layers,
            "shapes": self.index.shapes,
            "setting": asdict(self.setting),
            "notes": self.notes,
        }
        with atomic_write(path) as temporary:
            save_file(arrays, temporary, {k: json.dumps(v) for k, v in metadata.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Attribution":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file; expected a saved attribution")
        try:
            with safe_open(path, "pt") as file:
                metadata = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
                # Copies: what is mapped into memory would change with the file.
                arrays = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT:
                raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT!r}")
            shapes = tuple(tuple(shape) for shape in metadata["shapes"])
            index = FilterIndex(tuple(metadata["layers"]), shapes)
            names = metadata["degradations"]
            if len(set(names)) != len(names):
                raise ValueError(f"degradations {names}, expected each once")
            _check_shapes(arrays, index, len(names))
            return cls(
                index,
                {name: arrays[f"scores.{i}"] for i, name in enumerate(names)},
                setting=Setting(**metadata["setting"]),
                notes=tuple(metadata["notes"]),
                **{name: arrays[name] for name in ARRAYS},
            )
        except (SafetensorError, ValueError, KeyError, TypeError) as problem:
            raise ValueError(f"{path} is not a saved attribution: {problem}") from None


def _joined(parts: Sequence[Attribution], name: str) -> Tensor:
    """Scores of all parts, or their mean."""
    scores = torch.cat([part.by_degradation[name] for part in parts])
    if len(parts) == 1 or parts[0].setting.per_image:
        return scores
    images = torch.tensor([float(part.images) for part in parts], dtype=scores.dtype)
    return (images @ scores / images.sum())[None]


def _check_shapes(arrays: dict[str, Tensor], index: FilterIndex, degradations: int) -> None:
    """Refuse the arrays of a file that do not fit together."""
    if len(index.layers) != len(index.shapes):
        raise ValueError(f"{len(index.layers)} layers and {len(index.shapes)} shapes")
    if not all(len(shape) > 2 and min(shape) > 0 for shape in index.shapes):
        raise ValueError(f"shapes {index.shapes}, expected positive sizes [O, I, *k]")
    if arrays["scored"].dtype != torch.bool:
        raise ValueError(f"scored is of {arrays['scored'].dtype}, expected bool")
    rows, images = len(arrays["scores.0"]), arrays["losses"].shape[1]
    if rows not in (1, images):
        raise ValueError(f"scores of {rows} images beside losses of {images}")
    expected: dict[str, tuple[int, ...]] = {
        "completeness": (degradations, images),
        "error": (degradations, images),
        "losses": (degradations, images, 2),
        "scored": (len(index),),
        "points": (degradations, images),
        **{f"scores.{i}": (rows, len(index)) for i in range(degradations)},
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is {list(arrays[name].shape)}, expected {list(shape)}")
