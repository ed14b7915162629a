"""Tracker: attributes a training every so many steps, and ranks the filters it changes."""

import os
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.attribution.attributor import Attributor
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.ranking import number_of_filters
from faigfast.integration.batch import Batches
from faigfast.io.parts import SUFFIX, Parts
from faigfast.models.fingerprint import fingerprint
from faigfast.models.state import copy_of, equal_values, own_type, unwrap
from faigfast.training.lightning_callback import NetworkOf, lightning_callback
from faigfast.training.rankings import Rankings, Snapshot
from faigfast.training.restriction import Optimizers, Restriction, Trained, training_masks
from faigfast.training.tracked_images import TrackedImages

if TYPE_CHECKING:
    import pandas

TRAINED = ("discovered", "others")
UNRELATED = ("progress", "memory", "devices")  # settings that scores do not depend on
PART = "step-"


class Tracker:
    """Attributes the network of a training to its baseline every so many steps.

    Call it after every step of the optimiser. It keeps the mean scores of each snapshot, ranks the
    filters, and can restrict the training to the discovered filters, or to all others. It leaves
    weights, gradients, modes and random generators as they are: a training that is only observed
    ends with the same weights to the bit.

    Parameters
    ----------
    baseline : nn.Module
        θ̄, the network that the training starts from; copied.
    images : tuple, mapping or iterable
        The batch in any form that `attribute` takes, on any device; an iterator is read once.
    every : int
        Steps between two snapshots.
    fraction : float
        Share of all filters in a top set, in (0, 1].
    against : str or sequence of str, optional
        As in `Attribution.contrast`.
    folder : path-like, optional
        Receives each snapshot as it is taken; a tracker of the same baseline, images and settings
        goes on from there.
    overwrite : bool
        Discard the snapshots in `folder`, of this training or another.
    **settings : Any
        Keyword arguments of `attribute`, without per_image.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, as `attribute` for the baseline, settings and one batch, or
        if `folder` holds the snapshots of another training.

    Notes
    -----
    A snapshot keeps 4·D·F bytes of scores (float32, D degradations, F filters), and the losses of
    each image at the points of the line. Between snapshots the tracker holds a copy of the baseline
    and the attributor's weights.

    Its cost is `share`: seconds of all attributions / seconds since the first call of `step`.

    Examples
    --------
    >>> x, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    >>> optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    >>> tracker = Tracker(net, (x, gt), every=2, fraction=0.1, steps=4)
    >>> for _ in range(4):
    ...     optimizer.zero_grad()
    ...     nn.functional.l1_loss(net(x), gt).backward()
    ...     optimizer.step()
    ...     snapshot = tracker.step(net)
    >>> tracker.rankings.steps, len(tracker.top())
    ((2, 4), 4)
    """

    def __init__(
        self,
        baseline: nn.Module,
        images: Batches,
        *,
        every: int = 100,
        fraction: float = 0.01,
        against: str | Sequence[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        **settings: Any,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}; expected a positive number of steps")
        number_of_filters(fraction, 1, 1)  # checks its range
        if "per_image" in settings:
            raise TypeError("per_image is given; a Tracker keeps the mean over the images alone")
        self.every, self.fraction, self.against = every, fraction, against
        self._baseline = copy_of(unwrap(baseline, "baseline")).eval()
        self._settings = {**settings, "per_image": False}
        self._check_settings()
        self._images = TrackedImages(images, self._baseline)
        self._snapshots: list[Snapshot] = []
        self._restrictions: list[tuple[Restriction, str | None, Trained]] = []
        self._attributor: tuple[nn.Module, torch.device, Attributor] | None = None
        self._step: int | None = None  # of the last call
        self._start: float | None = None
        self._parts: Parts | None = None
        if folder is not None:
            identity = {
                "baseline": fingerprint(self._baseline),
                "images": self._images.digest,
                "settings": {k: _described(v) for k, v in settings.items() if k not in UNRELATED},
            }
            self._parts = Parts(folder, identity, overwrite)
            if overwrite:
                self._parts.discard()
            self._snapshots = _saved_snapshots(self._parts)

    def __repr__(self) -> str:
        taken = f"{len(self._snapshots)} snapshots"
        return f"Tracker({taken}, every {self.every} steps, {self.share:.1%} of the time)"

    def step(self, model: nn.Module, step: int | None = None) -> Snapshot | None:
        """Count one step of the training; attribute if a snapshot is due.

        Parameters
        ----------
        model : nn.Module
            The network in training, of the baseline's architecture; left as it is.
        step : int, optional
            Number of steps the training has taken, from 1, ascending; a repeated number counts
            once. None: one more than in the last call, or than in the last snapshot in `folder`.
            A first call with a lower number than that drops the snapshots from there on, as a
            training does that goes on from an older checkpoint.

        Returns
        -------
        Snapshot or None
            None where none is due, and with a warning where the weights are the baseline's.

        Raises
        ------
        TypeError, ValueError
            As `attribute`; if `step` is no number, or falls.

        Warns
        -----
        UserWarning
            Also where a restricted training keeps its filters, since all contrasts are 0.
        """
        began = time.perf_counter()
        number, previous = self._numbers(step)
        if self._step is None:
            self._drop_from(number)
        if self._start is None:
            self._start = began - (self._snapshots[-1].elapsed if self._snapshots else 0.0)
        if number // self.every == previous // self.every:
            self._step = number
            return None
        network = unwrap(model, "model")
        device = next(network.parameters()).device
        if device.type == "cuda":  # steps that still run are not the attribution's time
            torch.cuda.synchronize(device)
            began = time.perf_counter()
        if equal_values(self._baseline, network):
            text = f"no snapshot at step {number}: the weights are still the baseline's"
            warnings.warn(text, stacklevel=2)
            self._step = number
            return None
        images = self._images.placed(device, own_type(network))
        result = self._attributor_of(network, device)(images)
        end = time.perf_counter()
        snapshot = Snapshot(number, result, end - began, end - self._start)
        if self._parts is not None:
            self._parts.save(f"{PART}{number:09d}", *snapshot.to_tensors())
        self._snapshots.append(snapshot)
        self._step = number
        self._restrictions = [one for one in self._restrictions if one[0].active]
        for one in self._restrictions:
            try:
                self._rank_again(*one)
            except ValueError as problem:
                text = f"step {number} ranks no filter, so those of before stay: {problem}"
                warnings.warn(text, stacklevel=2)
        return snapshot

    __call__ = step

    @property
    def rankings(self) -> Rankings:
        """All snapshots; `Rankings.load` reads what `save` wrote."""
        return Rankings(tuple(self._snapshots), self.fraction, self.against)

    @property
    def history(self) -> "pandas.DataFrame":
        """One row per snapshot and degradation, as `Rankings.to_frame` gives it."""
        return self.rankings.to_frame()

    @property
    def seconds(self) -> float:
        """Time that all attributions took together, in seconds."""
        return self.rankings.seconds

    @property
    def share(self) -> float:
        """Share of the time from the first step to the last snapshot that attributions took."""
        return self.seconds / self._snapshots[-1].elapsed if self._snapshots else 0.0

    def top(self, degradation: str | None = None, step: int | None = None) -> FilterSet:
        """Take the filters of highest contrast, as `Rankings.top` does."""
        return self.rankings.top(degradation, step)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all snapshots to one safetensors file, for `Rankings.load`."""
        self.rankings.save(path)

    def masks(
        self,
        model: nn.Module,
        degradation: str | None = None,
        train: Trained = "discovered",
        step: int | None = None,
    ) -> dict[str, Tensor]:
        """Mark the entries of all parameters that learn.

        Parameters
        ----------
        model : nn.Module
            The network in training.
        degradation : str, optional
            Whose filters are discovered; may be None if there is only one.
        train : {"discovered", "others"}
            "discovered": the top filters alone; biases and everything else are frozen, as in
            `retrain`. "others": everything but the top filters.
        step : int, optional
            Of a snapshot; None: the last one.

        Returns
        -------
        dict of str to Tensor
            By parameter name (of the network within a wrapper): bool, of the parameter's shape and
            device; `train` takes it as `trainable`.

        Raises
        ------
        ValueError
            If `train` is another word, there is no such snapshot or degradation, or a layer
            computes its weight from others, such as weight norm.
        """
        _check_trained(train)
        return training_masks(unwrap(model, "model"), self.top(degradation, step), train)

    def restrict(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        degradation: str | None = None,
        train: Trained = "discovered",
    ) -> Restriction:
        """Train the discovered filters alone, or all others, from the next step on.

        Frozen entries stay the same to the bit, whatever momentum and weight decay do. Every
        snapshot ranks again: entries are frozen at their values of that time. Before the first
        snapshot everything learns. Buffers, such as the statistics of batch norm, are not frozen.

        Parameters
        ----------
        model : nn.Module
            The network in training.
        optimizer : torch.optim.Optimizer or iterable of them
            All that step the network.
        degradation, train
            As in `masks`.

        Returns
        -------
        Restriction
            `remove()` or the end of a `with` block lets everything learn again.

        Raises
        ------
        TypeError, ValueError
            As `masks`, or if the optimiser steps nothing of the network.
        """
        _check_trained(train)
        self._images.check_degradation(degradation)
        restriction = Restriction(unwrap(model, "model"), optimizer)
        if self._snapshots:
            self._rank_again(restriction, degradation, train)
        self._restrictions.append((restriction, degradation, train))
        return restriction

    def lightning(
        self,
        network: NetworkOf = None,
        train: Trained | None = None,
        degradation: str | None = None,
    ) -> Any:
        """Make a callback for the Trainer of PyTorch Lightning.

        Parameters
        ----------
        network : str or callable, optional
            The network within the LightningModule: the name of its attribute, or a function of the
            module. None: the module itself, of which `baseline` is a copy then.
        train, degradation
            As in `masks`, to restrict the training; None: only observe.

        Returns
        -------
        lightning.pytorch.Callback
            Counts by the Trainer's `global_step`.

        Raises
        ------
        ImportError
            If Lightning is not installed.
        """
        if train is not None:
            _check_trained(train)
        return lightning_callback(self, network, train, degradation)

    def _check_settings(self) -> None:
        """Refuse settings now that would stop the training at its first snapshot."""
        other = copy_of(self._baseline)
        with torch.no_grad():  # equal weights are refused
            next(p for p in other.parameters() if p.is_floating_point()).add_(1)
        Attributor(self._baseline, other, **self._settings)

    def _attributor_of(self, network: nn.Module, device: torch.device) -> Attributor:
        """Give the attributor of a network, which reads its weights of now."""
        if self._attributor is not None:
            known, place, attributor = self._attributor
            if known is network and place == device:
                attributor.refresh()
                return attributor
        self._baseline.to(device)
        attributor = Attributor(self._baseline, network, **self._settings)
        self._attributor = network, device, attributor
        return attributor

    def _numbers(self, step: int | None) -> tuple[int, int]:
        """Give the numbers of this step and the one before."""
        last = self._step
        if last is None and step is None:
            last = self._snapshots[-1].step if self._snapshots else 0
        if step is None:
            return (last or 0) + 1, last or 0
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"step is {step!r}; expected a number of steps, from 1")
        if last is not None and step < last:
            raise ValueError(
                f"step is {step} after {last}; expected ascending numbers of one training, and a "
                "Tracker of its own for another"
            )
        return step, max(step - 1, 0) if last is None else last

    def _drop_from(self, number: int) -> None:
        """Drop the snapshots that a training takes again."""
        for snapshot in self._snapshots:
            if snapshot.step >= number and self._parts is not None:
                self._parts.path(f"{PART}{snapshot.step:09d}").unlink(missing_ok=True)
        self._snapshots = [one for one in self._snapshots if one.step < number]

    def _rank_again(
        self, restriction: Restriction, degradation: str | None, train: Trained
    ) -> None:
        chosen = self.top(degradation)
        restriction.train_only(training_masks(restriction.network, chosen, train))


def _described(value: Any) -> Any:
    """Describe a setting in JSON types; a function by its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value)


def _saved_snapshots(parts: Parts) -> list[Snapshot]:
    """Read the snapshots in a folder, by ascending step; damaged ones count as missing."""
    names = sorted(file.name for file in parts.folder.glob(f"{PART}*{SUFFIX}"))
    loaded = (parts.load(name.removesuffix(SUFFIX), Snapshot.from_tensors) for name in names)
    return [snapshot for snapshot in loaded if snapshot is not None]


def _check_trained(train: str) -> None:
    if train not in TRAINED:
        raise ValueError(f"train is {train!r}; expected one of {TRAINED}")
