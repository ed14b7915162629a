"""Attributor: two networks once, then batch after batch of images in, scores of filters out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import length_hint
from threading import RLock
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from tqdm import tqdm

from faigfast.attribution.computation import SIGNED, Computation
from faigfast.attribution.contrast_refinement import ranking_goal
from faigfast.attribution.named_networks import named_networks, names_given, renamed_in_errors
from faigfast.attribution.uncompiled import uncompiled
from faigfast.backend.catalogue import choose
from faigfast.backend.cpu.allocator import free_cached
from faigfast.backend.gpu.auto_precision import EXACT, TYPES, RuleSettings, attribute_in_fastest
from faigfast.backend.gpu.devices import attribute_on_devices
from faigfast.backend.precision import PRECISIONS, check_precision
from faigfast.engine.graph import Graphs
from faigfast.engine.memory import checked_memory
from faigfast.filters.index import FilterIndex
from faigfast.filters.selection import Selection, select
from faigfast.integration.batch import Batches, batches, is_one_batch
from faigfast.integration.image_range import X_RANGE_NOTE, resembles_bytes_beside
from faigfast.integration.objective import Objective, resolve_objective, without_own_gradients
from faigfast.integration.objective_identity import ObjectiveIdentity
from faigfast.integration.padding import checked_pad, on_middle
from faigfast.integration.path import WeightPath
from faigfast.integration.refinement import schedule
from faigfast.integration.settings import AttributionSettings
from faigfast.integration.unbatched import refuse_unbatched
from faigfast.io.progress import progress_bar
from faigfast.models.fingerprint import fingerprints
from faigfast.models.fused import Fuse, check_fuse, fused_pair
from faigfast.models.state import identity, refuse_transforms, tensors, undisturbed, unwrap
from faigfast.result import Attribution

Devices = str | Sequence[str | torch.device]  # "all", or devices of one type
MOST_BATCHES = 10**9  # that a progress bar believes
attribution_lock = RLock()  # networks in use hold other tensors and are in eval mode
_graphs = WeakIdKeyDictionary()  # by target, for the next call of `attribute`; no weights


@uncompiled
def attribute_once(
    baseline: nn.Module, target: nn.Module, batch: Batches, **settings: Any
) -> Attribution:
    """Attribute by an `Attributor` of one call; the target's graphs are kept for the next call."""
    return Attributor(baseline, target, _graphs_of=_graphs, **settings)(batch)


class Attributor:
    """Attributes batch after batch for one pair of networks, whose graphs and weights it keeps.

    It captures and checks the networks once, where `attribute` does so at every call. Use it in
    loops over data sets and in trainings.

    Parameters
    ----------
    baseline, target : nn.Module
        θ̄ and θ, of one architecture; left as they are, in and between calls. `model_a` and
        `model_b` are other names of the two.
    **settings : Any
        Keyword arguments of `attribute`: rule, steps, tol, tol_contrast, overlap, emulate,
        objective, parameters, backend, precision, memory, progress, per_image, signed, devices,
        pad, fuse.

    Raises
    ------
    TypeError, ValueError
        As `attribute`, except for the errors that depend on images.

    Notes
    -----
    Call `refresh` after you changed the weights or the code of a network in place. The attributor
    itself notices a change of weights that torch counts, such as an optimizer's step, but no change
    through `.data` or NumPy. Threads may use attributors of their own; their calls wait for each
    other.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> with Attributor(a, b, steps=4) as attributor:
    ...     parts = [attributor((torch.rand(1, 3, 8, n), torch.rand(1, 3, 8, n))) for n in (8, 9)]
    >>> parts[0].merge(parts[1:]).images
    2
    """

    def __init__(
        self,
        baseline: nn.Module | None = None,
        target: nn.Module | None = None,
        *,
        rule: str = "averaged",
        steps: int | None = None,
        tol: float | None = None,
        tol_contrast: float | None = None,
        overlap: float | None = None,
        emulate: bool = False,
        objective: str | Objective = "squared_error",
        parameters: Selection | None = None,
        backend: str = "auto",
        precision: str = "auto",
        memory: int | None = None,
        progress: bool = False,
        per_image: bool = True,
        signed: bool = False,
        devices: Devices | None = None,
        pad: int = 0,
        fuse: Fuse | None = None,
        model_a: nn.Module | None = None,
        model_b: nn.Module | None = None,
        _graphs_of: WeakIdKeyDictionary | None = None,
    ) -> None:
        refuse_transforms()
        # `attribute` renames for its own caller.
        given = names_given(model_a, model_b, baseline, target)
        self._renamed = given if _graphs_of is None else set()
        baseline, target = named_networks(model_a, model_b, baseline, target)
        flags = {
            "emulate": emulate, "per_image": per_image, "signed": signed, "progress": progress,
        }  # fmt: skip
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} is {flag!r}; expected True or False")
        memory = checked_memory(memory)
        self._goal = ranking_goal(tol_contrast, overlap, rule, steps, emulate)
        ceiling = steps if self._goal is None or tol is not None else None
        self._count, self._schedule = schedule(rule, ceiling, tol, emulate)
        resolve_objective(objective)
        check_precision(precision)
        self._settings: dict[str, Any] = {
            "rule": rule, "steps": steps, "tol": None if tol is None else float(tol),
            "tol_contrast": self._goal and self._goal.tol_contrast,
            "overlap": self._goal and self._goal.overlap,
            "emulate": emulate, "objective": objective,
            "parameters": parameters, "backend": backend, "precision": precision, "memory": memory,
            "per_image": per_image, "signed": signed, "pad": checked_pad(pad),
        }  # fmt: skip
        check_fuse(fuse)
        self._progress, self._devices, self._fuse = progress, devices, fuse
        self._given = baseline, target
        self._computation: Computation | None = None
        self._open = True
        if devices is not None:
            return
        with renamed_in_errors(self._renamed):
            self._own = unwrap(baseline, "model_a"), unwrap(target, "model_b")
            if _graphs_of is None:
                self._graphs = Graphs()
            else:
                self._graphs = _graphs_of.setdefault(self._own[1], Graphs())
            self.refresh()

    @uncompiled
    def __call__(self, batch: Batches) -> Attribution:
        """Attribute a batch or an iterable of batches, in any form that `attribute` takes.

        Raises
        ------
        TypeError, ValueError
            As `attribute`; also if the networks have moved or changed their types or shapes,
            or after the end of a `with` block.
        """
        with renamed_in_errors(self._renamed):
            return self._called(batch)

    def _called(self, batch: Batches) -> Attribution:
        refuse_transforms()
        if not self._open:
            raise ValueError("the Attributor is closed; expected a call inside its `with` block")
        if self._devices is not None:
            networks, options = fused_pair(self._fuse, *self._given), self._settings
            return attribute_on_devices(
                self._devices, *networks, batch, attribute_once, options, self._progress
            )
        with attribution_lock:
            self._check_for_changes()
            if self._fastest:
                once = partial(attribute_once, *self._modules, **self._settings)
                rule = RuleSettings(
                    self._settings["backend"], self._settings["rule"], self._count,
                    self._settings["tol"], self._settings["emulate"], self._settings["pad"],
                )  # fmt: skip
                function = resolve_objective(self._settings["objective"])[1]
                parameters, signed = (self._settings[name] for name in ("parameters", "signed"))
                identity_of = ObjectiveIdentity.of(function, self)
                key = *fingerprints(*self._modules), identity_of, str(parameters), signed
                return attribute_in_fastest(once, batch, self._first, rule, key, self._progress)
            own = without_own_gradients(self._settings["objective"])
            with undisturbed(*self._modules), own, self._progress_bar() as bar:
                return self._attribute(batch, bar)

    def refresh(self) -> None:
        """Read the networks again after a change of their weights or code.

        Raises
        ------
        TypeError, ValueError
            As the constructor.
        """
        if self._devices is not None:
            return
        with attribution_lock:
            self._computation = None
            self._modules = fused_pair(self._fuse, *self._own)
            self._first, self._backend, self._backend_reason, precision = self._choose_backend()
            self._fastest = precision is None
            self._versions, self._layout = _versions(self._own), _layout(self._own)
            if precision is not None:
                with undisturbed(*self._modules):
                    self._computation = self._make_computation(precision)

    def __enter__(self) -> "Attributor":
        """Give the attributor; the end of the block drops everything it keeps."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the graphs, the weights and the memory of the kernels."""
        self._open, self._computation, self._graphs = False, None, Graphs()
        free_cached()

    def _choose_backend(self) -> tuple[Tensor, str, str, str | None]:
        """Give a parameter (for device and type), the backend, its reason, and the precision.

        None as precision: the fastest is measured on the images.
        """
        target = self._modules[1]
        first = next((p for p in target.parameters() if p.is_floating_point()), None)
        if first is None:
            raise ValueError("model_b has no parameters: nothing to attribute")
        precision = self._settings["precision"]
        used, reason = choose(self._settings["backend"], first.device, precision)
        check_precision(precision, used)
        own = next((name for name, dtype in PRECISIONS.items() if dtype == first.dtype), None)
        if own is None:
            problem = f"model_b is of {first.dtype}"
            raise ValueError(f"{problem}; expected one of {', '.join(PRECISIONS)}")
        if precision == "auto":
            if own == "bf16":  # on a CPU a precision of its own
                used, reason = choose(self._settings["backend"], first.device, own)
            measured = own == EXACT and first.device.type in TYPES
            # Estimates of the errors of points do not see those of rounding.
            return first, used, reason, None if measured and self._goal is None else own
        return first, used, reason, precision

    def _make_computation(self, precision: str) -> Computation:
        baseline, target = self._modules
        index = FilterIndex.of(target)
        if not len(index):
            raise ValueError("the networks have no convolution: there are no filters to attribute")
        path = WeightPath(baseline, target)
        given, digests = self._settings, fingerprints(baseline, target)
        name, objective = resolve_objective(given["objective"])
        return Computation(
            own_path=path,
            modules=self._modules,
            schedule=self._schedule,
            objective=on_middle(objective, given["pad"]),
            index=index,
            scored=select(given["parameters"], index, path.end),
            settings=AttributionSettings(
                rule=given["rule"],
                steps=self._count if self._goal is None else given["steps"],
                tol=given["tol"],
                emulate=given["emulate"],
                objective=name,
                backend=self._backend,
                precision=precision,
                per_image=given["per_image"],
                baseline=digests[0],
                target=digests[1],
                method=SIGNED if given["signed"] else "faig",
                pad=given["pad"],
                tol_contrast=given["tol_contrast"],
                overlap=given["overlap"],
            ),
            tol=given["tol"],
            goal=self._goal,
            memory=given["memory"],
            graphs=self._graphs,
        )

    def _check_for_changes(self) -> None:
        """Read the networks again if torch counted a change; refuse moved or replaced tensors."""
        versions = _versions(self._own)
        if versions == self._versions:
            return
        for role, (before, now) in enumerate(zip(self._layout, _layout(self._own), strict=True)):
            for key in before | now:
                if before.get(key) != now.get(key):
                    raise ValueError(
                        f"{key!r} of model_{'ab'[role]} was {before.get(key, 'not there')} and is "
                        f"{now.get(key, 'not there')}; expected the networks as the Attributor "
                        "read them: move them back, or call refresh()"
                    )
        self.refresh()

    def _progress_bar(self) -> tqdm:
        return progress_bar(unit="point·image", disable=not self._progress, leave=None)

    def _attribute(self, batch: Batches, bar: tqdm) -> Attribution:
        computation = self._computation
        assert computation is not None
        parts: list[Attribution] = []
        count = 1 if is_one_batch(batch) else _expected_batches(batch)
        done = 0
        given = batches(batch, self._first.device, self._first.dtype)
        range_notes: dict[str, None] = {}
        for number, part in enumerate(given, start=1):
            refuse_unbatched(self._modules[1], computation.index, part)
            if any(resembles_bytes_beside(x, part.gt[name]) for name, x in part.lq.items()):
                range_notes[X_RANGE_NOTE] = None
            parts.append(computation.attribute_batch(part, done, bar, count, number))
            done += part.images
            if not self._settings["per_image"]:
                parts = [parts[0].merge(parts[1:])]
        bar.total = bar.n
        bar.refresh()
        given_notes = (self._backend_reason, *computation.notes, *range_notes)
        merged = parts[0].merge(parts[1:])
        missed = [] if self._goal is None else self._goal.missed_by(merged)
        return replace(merged, notes=tuple(filter(None, (*given_notes, *missed))))


def _expected_batches(batch: object) -> int:
    """Ask an iterable for its number of batches; 0 if unknown."""
    try:
        count = length_hint(batch)
    except Exception:  # of the caller's own code; iterating shows what is wrong
        return 0
    return count if count < MOST_BATCHES else 0


def _versions(modules: tuple[nn.Module, nn.Module]) -> list[Any]:
    """Identify the tensors of two networks, with the number of writes that torch counted."""
    return [
        (key, identity(value), value.dtype, 0 if value.is_inference() else value._version)
        for module in modules
        for key, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    ]


def _layout(modules: tuple[nn.Module, nn.Module]) -> list[dict[str, str]]:
    return [
        {
            key: f"{list(value.shape)} of {value.dtype} on {value.device}"
            for key, value in tensors(module).items()
        }
        for module in modules
    ]
