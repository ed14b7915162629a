"""The exact sweep: every filter put back to the baseline's alone, and the loss measured."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from faigfast.analysis.ablation_result import Ablation
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.attribution.attributor import attribution_lock
from faigfast.backend.catalogue import choose
from faigfast.backend.cpu.state import computing
from faigfast.engine.ablation import Ablated, TargetValues
from faigfast.engine.graph import Graphs
from faigfast.engine.masked_forwards import MaskedForwards
from faigfast.engine.memory import checked_memory, default_budget
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import convolution_of, output_channels
from faigfast.integration.batch import Batches, batches
from faigfast.integration.objective import Objective, resolve_objective, squared_error
from faigfast.integration.padding import checked_pad, on_middle, reflected
from faigfast.integration.path import WeightPath
from faigfast.io.progress import progress_bar
from faigfast.models.fingerprint import digest_of, fingerprints
from faigfast.models.state import undisturbed, unwrap
from faigfast.ops.registry import Use
from faigfast.version import __version__

By = Literal["kernel", "channel"]
# Largest relative difference from the loss of a masked forward that rounding explains.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
COARSE = 2e-2  # of 16-bit types


def ablate(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    *,
    filters: FilterSet | Sequence[int] | Tensor | None = None,
    by: By = "kernel",
    biases: bool = False,
    objective: str | Objective = "squared_error",
    backend: str = "auto",
    memory: int | None = None,
    pad: int = 0,
    folder: str | os.PathLike[str] | FinishedParts | None = None,
    progress: bool = False,
) -> Ablation:
    """Put every filter back to the baseline's, one at a time, and measure the target without it.

    This is what attributions approximate: the change of the loss, exact for one filter at a time.
    It costs F forwards of the network; values that ablations share are computed once.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair; left as they are.
    batch : tuple, mapping or iterable
        As in `faigfast.attribute`, without further inputs of the networks.
    filters : FilterSet or sequence of int, optional
        Flat numbers of the filters to ablate; None: all F.
    by : {"kernel", "channel"}
        Ablate one filter at a time, or all filters of an output channel together: `filters` then
        names channels by any of their filters.
    biases : bool
        With "channel", the channel's bias goes back too.
    objective : str or callable
        As in `faigfast.attribute`.
    backend : str
        As in `faigfast.attribute`; "reference" runs one masked forward after the other.
    memory : int, optional
        Bytes for activations; None: a share of the machine's memory.
    pad : int
        As in `faigfast.attribute`.
    folder : path-like, optional
        Keeps finished layers of every image, so that an interrupted call goes on.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Ablation
        Losses [N, K] by degradation.

    Raises
    ------
    TypeError, ValueError
        As `faigfast.attribute`; also if `filters` or `by` is of another kind, or the folder holds
        another run's parts.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> x, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    >>> ablate(a, b, (x, gt)).change().shape
    torch.Size([2, 9])
    """
    if by not in ("kernel", "channel"):
        raise ValueError(f"by is {by!r}; expected 'kernel' or 'channel'")
    if biases and by == "kernel":
        raise ValueError("biases go back with whole channels; expected by='channel'")
    checked_memory(memory)
    modules = unwrap(baseline, "baseline"), unwrap(target, "target")
    name, loss = resolve_objective(objective)
    with attribution_lock, undisturbed(*modules):
        run = _Run(modules, filters, by, biases, loss, backend, memory, checked_pad(pad))
        if isinstance(folder, FinishedParts):
            parts = folder
        else:
            identity = {
                "baseline": run.fingerprints[0],
                "target": run.fingerprints[1],
                "objective": name,
                "backend": run.backend,
                "pad": run.pad,
                "faigfast": __version__,
            }
            parts = FinishedParts(folder, identity)
        return run.ablation(batch, name, parts, progress)


@dataclass(frozen=True)
class _Layer:
    """What is ablated in one layer: its key, ablations and the masks of plain forwards."""

    key: str
    ablated: Ablated
    numbers: Tensor  # [K], flat
    channels: Tensor  # [first, second], output channel of every kernel
    bias: str  # key of the bias that goes back too; "": none

    @property
    def name(self) -> str:
        """Name the ablations for files that keep them."""
        unit = "channels" if self.ablated.kernels is None else "kernels"
        bias = " with bias" if self.bias else ""
        return f"{self.key} {unit} {digest_of({'numbers': self.numbers})[:16]}{bias}"

    def masks(self, k: int) -> dict[str, Tensor]:
        """Give the elements that ablation k puts back, by state-dict key."""
        output = int(self.ablated.outputs[k])
        if self.ablated.kernels is not None:
            mask = torch.zeros_like(self.channels, dtype=torch.bool)
            mask[tuple(self.ablated.kernels[k].tolist())] = True
            return {self.key: mask}
        masks = {self.key: self.channels == output}
        if self.bias:
            masks[self.bias] = torch.arange(int(self.channels.max()) + 1) == output
        return masks


class _Run:
    """One call of `ablate`: the line, what is ablated in every layer, and the plans."""

    def __init__(
        self,
        modules: tuple[nn.Module, nn.Module],
        filters: FilterSet | Sequence[int] | Tensor | None,
        by: By,
        biases: bool,
        objective: Objective,
        backend: str,
        memory: int | None,
        pad: int,
    ) -> None:
        self.by, self.memory, self.pad = by, memory, pad
        self.path, self.index = WeightPath(*modules), FilterIndex.of(modules[1])
        if not len(self.index):
            raise ValueError("the networks have no convolution: there are no filters to ablate")
        baseline, target = fingerprints(*modules)
        self.fingerprints = baseline, target
        self.first = next(iter(self.path.start.values()))
        self.backend, _ = choose(backend, self.first.device)
        self.objective = objective
        self.graphs, self.use = Graphs(), Use("" if self.backend == "torch" else self.backend)
        self.notes = self.use.refused
        self.plain = MaskedForwards(self.path)
        self.layers = self._layers(modules[1], flat_numbers(filters, self.index), biases)
        self.numbers = torch.cat([layer.numbers for layer in self.layers])
        self.checked: set[tuple[str, torch.Size]] = set()

    def _layers(self, network: nn.Module, numbers: Tensor, biases: bool) -> list[_Layer]:
        """Give what is ablated in every layer, in the order of the index."""
        all_channels = output_channels(network, self.index)
        layers = []
        for n, key in enumerate(self.index.layers):
            low, high = self.index.offsets[n : n + 2]
            own = numbers[(numbers >= low) & (numbers < high)] - low
            if not len(own):
                continue
            channels, columns = all_channels[key], self.index.shapes[n][1]
            kernels = None
            if self.by == "kernel":
                outputs = channels[own]
                kernels = torch.stack([own // columns, own % columns], 1)
            else:
                outputs = channels[own].unique()
                own = torch.stack([(channels == c).nonzero()[0, 0] for c in outputs])
            bias = f"{convolution_of(network, key)[0]}.bias".lstrip(".") if biases else ""
            ablated = Ablated(outputs, kernels)
            channels = channels.view(self.index.shapes[n][:2])
            moves = bias if bias in self.path.delta else ""
            layers.append(_Layer(key, ablated, own + low, channels, moves))
        return layers

    def ablation(
        self, batch: Batches, objective: str, parts: FinishedParts, progress: bool
    ) -> Ablation:
        """Ablate on every image of all batches."""
        images: dict[str, list[dict[str, Tensor]]] = {}
        with progress_bar(desc="ablating", unit="ablation", disable=not progress) as bar:
            bar.total = 0
            for one in batches(batch, self.first.device, self.first.dtype):
                if one.inputs:
                    raise ValueError("batch holds inputs; expected networks that take images alone")
                bar.total += len(one.lq) * one.images * len(self.numbers)
                for name, lq in one.lq.items():
                    pairs = zip(lq.detach().split(1), one.gt[name].detach().split(1), strict=True)
                    rows = (_Image(self, x, gt, parts, bar.update).losses() for x, gt in pairs)
                    images.setdefault(name, []).extend(rows)
        stacked = {
            name: {part: torch.stack([row[part] for row in rows]) for part in rows[0]}
            for name, rows in images.items()
        }
        return Ablation(
            self.index,
            self.by,
            self.numbers,
            {name: values["losses"][:, 0] for name, values in stacked.items()},
            {name: values["target"][:, 0] for name, values in stacked.items()},
            {
                name: (values["losses"][:, 1], values["target"][:, 1])
                for name, values in stacked.items()
                if values["target"].shape[1] > 1
            },
            objective,
            self.fingerprints,
            tuple(self.notes),
        )


class _Image:
    """All ablations on one image under one degradation."""

    def __init__(
        self,
        run: _Run,
        x: Tensor,
        gt: Tensor,
        parts: FinishedParts,
        progress: Callable[[int], Any],
    ) -> None:
        self.run, self.gt, self.parts, self.progress = run, gt, parts, progress
        self.x = reflected(x, run.pad)
        self.digest = digest_of({"x": x, "gt": gt})[:16]
        own = run.objective
        both = [own] if own is squared_error else [own, squared_error]
        self.objectives = [on_middle(one, run.pad) for one in both]
        self._values: TargetValues | str | None = None  # a text says why there are none

    def losses(self) -> dict[str, Tensor]:
        """Give "losses" [J, K] and "target" [J], float64."""
        target = self.parts.tensors(f"{self.digest} target", self._target)["losses"]
        self.objectives = self.objectives[: len(target)]
        columns = []
        for layer in self.run.layers:
            compute = partial(self._layer, layer, target)
            part = self.parts.tensors(f"{self.digest} {layer.name}", compute)
            columns.append(part["losses"])
            self.progress(len(layer.ablated))
        return {"losses": torch.cat(columns, 1), "target": target}

    def _target(self) -> dict[str, Tensor]:
        """Measure the target; the squared error is left out where the output is no image."""
        own, *others = (partial(self._plain, objectives=[one]) for one in self.objectives)
        losses = [own()]
        with suppress(ValueError, TypeError):
            losses += [other() for other in others]
        return {"losses": torch.cat(losses)}

    def _plain(
        self, masks: dict[str, Tensor] | None = None, objectives: Sequence[Objective] = ()
    ) -> Tensor:
        chosen = objectives or self.objectives
        return self.run.plain.losses(self.x, self.gt, chosen, masks).cpu()

    def _layer(self, layer: _Layer, target: Tensor) -> dict[str, Tensor]:
        """Compute the losses [J, K] of one layer's ablations."""
        delta = self.run.path.delta.get(layer.key)
        if delta is None and not layer.bias:  # nothing would change
            return {"losses": target[:, None].expand(-1, len(layer.ablated)).clone()}
        losses = None
        with computing():
            if delta is not None:
                losses = self._shared(layer, delta, target)
            if losses is None:
                masks = map(layer.masks, range(len(layer.ablated)))
                losses = torch.stack([self._plain(mask) for mask in masks], 1)
        return {"losses": losses}

    def _shared(self, layer: _Layer, delta: Tensor, target: Tensor) -> Tensor | None:
        """Compute a layer's losses from values that ablations share; None, noted, if it cannot."""
        run, values = self.run, self._target_values()
        if isinstance(values, str):
            run.notes.setdefault(f"every ablation is a forward of its own: {values}")
            return None
        convolution = values.convolution(layer.key)
        if convolution is None:
            run.notes.setdefault(
                f"every ablation of {layer.key!r} is a forward of its own: its weight is computed, "
                "or serves several operations"
            )
            return None
        losses = torch.empty(len(self.objectives), len(layer.ablated), dtype=torch.float64)
        memory = run.memory or default_budget(self.x.device)
        workers = torch.get_num_threads() if self.x.device.type == "cpu" else 1
        bias = run.path.delta.get(layer.bias)
        for places, some in values.ablated_losses(
            convolution, delta, bias, layer.ablated, memory, workers
        ):
            losses[:, places] = some.double().cpu()
        if not self._agrees(layer, delta, losses, target):
            run.notes.setdefault(
                f"every ablation of {layer.key!r} is a forward of its own: shared values gave "
                "another loss"
            )
            return None
        return losses

    def _agrees(self, layer: _Layer, delta: Tensor, losses: Tensor, target: Tensor) -> bool:
        """Compare the largest change of a layer with a masked forward, once an image shape."""
        if (layer.key, self.x.shape) in self.run.checked:
            return True
        k = int((losses[0] - target[0]).abs().argmax())
        plain = self._plain(layer.masks(k))
        tolerance = TOLERANCES.get(delta.dtype, COARSE)
        scale = torch.maximum(plain.abs(), target.abs())
        if bool(((losses[:, k] - plain).abs() <= tolerance * scale).all()):
            self.run.checked.add((layer.key, self.x.shape))
            return True
        return False

    def _target_values(self) -> TargetValues | str:
        """Run the target once and keep its values; a text says why that is impossible."""
        if self._values is None:
            run, plan = self.run, None
            if run.backend != "reference":
                plan = run.graphs.plan_of(run.path, self.x)
            if plan is None:
                asked = run.backend == "reference"
                self._values = "as asked for" if asked else "the network is no fixed graph"
            else:
                self._values = TargetValues(
                    plan, run.path, self.x, self.gt, self.objectives, run.use
                )
        return self._values


def flat_numbers(filters: FilterSet | Sequence[int] | Tensor | None, index: FilterIndex) -> Tensor:
    """Read filters to ablate as ascending flat numbers [K]; None: all."""
    if filters is None:
        return torch.arange(len(index))
    if not isinstance(filters, FilterSet):
        if isinstance(filters, str) or not isinstance(filters, Sequence | Tensor):
            kind = type(filters).__name__
            raise TypeError(f"filters is a {kind}; expected a FilterSet or flat numbers")
        filters = FilterSet(torch.as_tensor(filters), filter_index=index)
    elif filters.index and filters.index != index.fingerprint:
        raise ValueError("filters are of another network than the pair's")
    if not len(filters):
        raise ValueError("filters are empty; expected one or more")
    if int(filters.indices.max()) >= len(index):
        raise ValueError(f"filters hold {int(filters.indices.max())}; the network has {len(index)}")
    return filters.indices.sort().values
