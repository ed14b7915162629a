"""attribute() and Attributor: two networks and images in, scores of filters out."""

from dataclasses import replace
from functools import partial
from numbers import Integral as Integer
from operator import length_hint
from threading import RLock
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from tqdm import tqdm

from faigfast.attribution.computation import SIGNED, Computation
from faigfast.backend.catalogue import choose
from faigfast.backend.cpu.allocator import free_cached
from faigfast.backend.gpu.auto_precision import EXACT, TYPES, Plan, in_fastest
from faigfast.backend.gpu.devices import spread
from faigfast.backend.precision import PRECISIONS, check_precision
from faigfast.engine.graph import Graphs
from faigfast.filters.filter_set import FilterIndex
from faigfast.filters.selection import Selection, select
from faigfast.integration.batch import batches, is_single
from faigfast.integration.objective import Objective, resolve_objective
from faigfast.integration.path import WeightPath
from faigfast.integration.refinement import schedule
from faigfast.integration.settings import Setting
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import identity, tensors, undisturbed, unwrap
from faigfast.result import Attribution

alone = RLock()  # networks hold other tensors, and are in eval mode, while they are attributed
_graphs = WeakIdKeyDictionary()  # of targets, for the next call of `attribute`: never weights


def attribute(
    model_a: nn.Module,
    model_b: nn.Module,
    batch: Any,
    *,
    rule: str = "midpoint",
    steps: int | None = None,
    tol: float | None = None,
    emulate: bool = False,
    objective: str | Objective = "squared_error",
    parameters: Selection | None = None,
    backend: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    progress: bool = False,
    per_image: bool = True,
    signed: bool = False,
    devices: Any = None,
) -> Attribution:
    """Attribute the removal of degradations to filters, by integrated gradients in weight space.

    On the line γ(α) = θ̄ + α(θ − θ̄) it computes, for every image x and its ground truth,
    I_i = Δ_i Σ_s w_s ∂L(γ(α_s), x)/∂γ_i and the score Σ |I_i| of every k×k kernel.

    Parameters
    ----------
    model_a, model_b : nn.Module
        Baseline θ̄ and target θ, of one architecture; called in eval mode, left as they are.
    batch : tuple, mapping or iterable
        `(x, gt)`; or `{"lq": x, "gt": gt}`; or several degradations of the same images,
        `{"lq": {"blur": xb, "noise": xn}, "gt": gt}` (gt may be such a mapping too); or an
        iterable of such batches, of any sizes. x is [N, C, *spatial], of the networks' dtype and
        device; gt [N, ...] is what the output is compared with.
    rule : str
        Quadrature rule; see `faigfast.integration.quadrature.quadrature`. The authors' is "left".
    steps : int, optional
        Number of nodes; unless given 20, 16 of "graded", 21 of "gauss-kronrod" and the authors' 100
        of "left" and "right"; for images x of 64·64 pixels or more 15 of "midpoint" and 14 of
        "graded" (docs/accuracy.md compares). With `tol` the most that are taken, 729 unless given.
    tol : float, optional
        Refine the rule ("graded" is the most economical; "midpoint", "trapezoid", "left" and
        "right" nest too), image by image, until the estimated relative L1 error of its scores is
        at most this; no point is evaluated twice.
    emulate : bool
        Predict the sum of the left or right rule of `steps` nodes from 17 evaluations.
    objective : str or callable
        "squared_error" (summed over an image), "absolute_error", or a function
        `(output, gt) -> [B]` with one loss a sample.
    parameters : str, iterable of str or callable, optional
        Names or glob patterns of convolution weights, or a predicate on (name, tensor), that are
        scored; all others still move. None: every convolution weight.
    backend : str
        "auto" or one that `faigfast.backends()` has.
    precision : str
        "fp64", "fp32", "bf16", "fp16", or "auto": the networks' own; on a GPU, of networks in
        float32, the fastest whose error, measured on a crop, is below the rule's own. With the
        backend "triton" also "tf32" and "bf16x3", float32 multiplied by matrix instructions:
        rounded to 10 bits, or as three products of bfloat16.
    memory : int, optional
        Budget in bytes for activations, gradients and their sums; None: a quarter of the device's
        memory, four fifths of what is free where that is less. Scores do not depend on it beyond
        rounding. The reference backend, and networks that run point by point, hold one image at
        one point of the line, the least there is, and do not count it.
    progress : bool
        Show a progress bar in points·images with rate and time left.
    per_image : bool
        Keep the scores of every image. If False, only their mean is kept, and memory does not
        grow with the number of batches.
    signed : bool
        Score a kernel by −Σ I_i, how much of the loss it takes away, in place of Σ |I_i|: a rival
        of FAIG, in which what a kernel's weights do to each other's disadvantage is lost.
    devices : "all" or sequence of str or torch.device, optional
        Spread the images over several devices of this machine, such as ["cuda:0", "cuda:1"], with
        copies of the networks and a process for each; "all" stands for every GPU. A script begins
        its work under `if __name__ == "__main__":` then. None: where the networks are.

    Returns
    -------
    Attribution

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument's value is out of range, the networks differ in more than their values or
        not at all, or the images do not fit; models and random generators are as before.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021. The absolute value is taken for each image, after the sum
    over the line. Calls from several threads wait for each other; nothing else may use the networks
    meanwhile.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> result = attribute(a, b, (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    >>> result.scores().shape
    torch.Size([2, 9])
    """
    attributor = Attributor(
        model_a, model_b, rule=rule, steps=steps, tol=tol, emulate=emulate, objective=objective,
        parameters=parameters, backend=backend, precision=precision, memory=memory,
        progress=progress, per_image=per_image, signed=signed, devices=devices,
        _graphs_of=_graphs,
    )  # fmt: skip
    return attributor(batch)


class Attributor:
    """Attributes batch after batch for one pair of networks, and keeps what it found out of them.

    It owns the graphs of the networks, their weights as the kernels read them, and the checks of
    both; `attribute` does all this once for every call. For loops over data sets and trainings.

    Parameters
    ----------
    baseline, target : nn.Module
        θ̄ and θ, of one architecture; left as they are, in and between calls.
    **settings
        Those of `attribute`, which says what they are: rule, steps, tol, emulate, objective,
        parameters, backend, precision, memory, progress, per_image, signed, devices.

    Raises
    ------
    TypeError, ValueError
        As `attribute`, but for what the images decide.

    Notes
    -----
    Call `refresh` after the networks changed in place, be it their weights or their code. A change
    of weights that torch counts, such as an optimizer's step, is noticed without; one through
    `.data` or NumPy is not. Several attributors may be used in several threads; calls wait for each
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
        baseline: nn.Module,
        target: nn.Module,
        *,
        rule: str = "midpoint",
        steps: int | None = None,
        tol: float | None = None,
        emulate: bool = False,
        objective: str | Objective = "squared_error",
        parameters: Selection | None = None,
        backend: str = "auto",
        precision: str = "auto",
        memory: int | None = None,
        progress: bool = False,
        per_image: bool = True,
        signed: bool = False,
        devices: Any = None,
        _graphs_of: Any = None,
    ) -> None:
        flags = {"emulate": emulate, "per_image": per_image, "signed": signed}
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} is {flag!r}; expected True or False")
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, Integer)):
            raise TypeError(f"memory is {memory!r}; expected a number of bytes")
        if memory is not None and memory <= 0:
            raise ValueError(f"memory is {memory}; expected a positive number of bytes")
        self._count, self._schedule = schedule(rule, steps, tol, emulate)
        resolve_objective(objective)
        check_precision(precision)
        self._settings: dict[str, Any] = {
            "rule": rule, "steps": steps, "tol": tol, "emulate": emulate, "objective": objective,
            "parameters": parameters, "backend": backend, "precision": precision, "memory": memory,
            "per_image": per_image, "signed": signed,
        }  # fmt: skip
        self._progress, self._devices = progress, devices
        self._given = baseline, target
        self._computation: Computation | None = None
        self._open = True
        if devices is not None:
            return
        self._modules = unwrap(baseline, "model_a"), unwrap(target, "model_b")
        if _graphs_of is None:
            self._graphs = Graphs()
        else:
            self._graphs = _graphs_of.setdefault(self._modules[1], Graphs())
        self.refresh()

    def __call__(self, batch: Any) -> Attribution:
        """Attribute a batch, or an iterable of batches, of the forms that `attribute` takes.

        Raises
        ------
        TypeError, ValueError
            As `attribute`; also if the networks were moved, or are of other types or shapes than
            they were, or after the end of a `with` block.
        """
        if not self._open:
            raise ValueError("the Attributor is closed; expected a call inside its `with` block")
        if self._devices is not None:
            networks, options = self._given, self._settings
            return spread(self._devices, *networks, batch, attribute, options, self._progress)
        with alone:
            self._follow()
            if self._fastest:
                once = partial(attribute, *self._modules, **self._settings)
                plan = Plan(
                    self._settings["backend"], self._settings["rule"], self._count,
                    self._settings["tol"], self._settings["emulate"],
                )  # fmt: skip
                function = resolve_objective(self._settings["objective"])[1]
                parameters, signed = (self._settings[name] for name in ("parameters", "signed"))
                key = *fingerprints(*self._modules), id(function), str(parameters), signed
                return in_fastest(once, batch, self._first, plan, key, self._progress)
            with undisturbed(*self._modules), self._bar() as bar:
                return self._attribute(batch, bar)

    def refresh(self) -> None:
        """Read the networks again, after their weights or their code changed.

        Raises
        ------
        TypeError, ValueError
            As at the beginning.
        """
        if self._devices is not None:
            return
        with alone:
            self._computation = None
            self._first, self._backend, self._why, precision = self._chosen()
            self._fastest = precision is None
            self._seen, self._layout = _versions(self._modules), _layout(self._modules)
            if precision is not None:
                with undisturbed(*self._modules):
                    self._computation = self._made(precision)

    def __enter__(self) -> "Attributor":
        """Give itself; at the end of the block everything that it keeps is dropped."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop graphs, weights and memory that the kernels keep."""
        self._open, self._computation, self._graphs = False, None, Graphs()
        free_cached()

    def _chosen(self) -> tuple[Tensor, str, str, str | None]:
        """Give a parameter, for device and type, the backend and why, and the precision.

        None for the precision: the fastest is measured on the images.
        """
        target = self._modules[1]
        first = next((p for p in target.parameters() if p.is_floating_point()), None)
        if first is None:
            raise ValueError("model_b has no parameters: nothing to attribute")
        precision = self._settings["precision"]
        used, why = choose(self._settings["backend"], first.device, precision)
        check_precision(precision, used)
        own = next((name for name, dtype in PRECISIONS.items() if dtype == first.dtype), None)
        if own is None:
            found = f"model_b is of {first.dtype}"
            raise ValueError(f"{found}; expected one of {', '.join(PRECISIONS)}")
        if precision == "auto":
            return first, used, why, None if own == EXACT and first.device.type in TYPES else own
        return first, used, why, precision

    def _made(self, precision: str) -> Computation:
        baseline, target = self._modules
        index = FilterIndex.of(target)
        if not len(index):
            raise ValueError("the networks have no convolution: there are no filters to attribute")
        line = WeightPath(baseline, target)
        given, prints = self._settings, fingerprints(baseline, target)
        name, objective = resolve_objective(given["objective"])
        return Computation(
            line=line,
            modules=self._modules,
            schedule=self._schedule,
            objective=objective,
            index=index,
            scored=select(given["parameters"], index, line.end),
            setting=Setting(
                rule=given["rule"],
                steps=self._count,
                tol=given["tol"],
                emulate=given["emulate"],
                objective=name,
                backend=self._backend,
                precision=precision,
                per_image=given["per_image"],
                baseline=prints[0],
                target=prints[1],
                method=SIGNED if given["signed"] else "faig",
            ),
            tol=given["tol"],
            memory=None if given["memory"] is None else int(given["memory"]),
            graphs=self._graphs,
        )

    def _follow(self) -> None:
        """Read the networks again where torch counted a change; refuse other tensors."""
        versions = _versions(self._modules)
        if versions == self._seen:
            return
        for role, (before, now) in enumerate(
            zip(self._layout, _layout(self._modules), strict=True)
        ):
            for key in before | now:
                if before.get(key) != now.get(key):
                    raise ValueError(
                        f"{key!r} of model_{'ab'[role]} was {before.get(key, 'not there')} and is "
                        f"{now.get(key, 'not there')}; expected the networks as the Attributor "
                        "read them: move them back, or call refresh()"
                    )
        self.refresh()

    def _bar(self) -> tqdm:
        return tqdm(unit="point·image", disable=not self._progress, leave=None)

    def _attribute(self, batch: Any, bar: tqdm) -> Attribution:
        computation = self._computation
        assert computation is not None
        parts: list[Attribution] = []
        number = 1 if is_single(batch) else length_hint(batch)
        done = 0
        given = batches(batch, self._first.device, self._first.dtype)
        for place, part in enumerate(given, start=1):
            parts.append(computation.batch(part, done, bar, number, place))
            done += part.images
            if not self._settings["per_image"]:
                parts = [parts[0].merge(parts[1:])]
        bar.total = bar.n
        bar.refresh()
        notes = tuple(note for note in (self._why, *computation.notes) if note)
        return replace(parts[0].merge(parts[1:]), notes=notes)


def _versions(modules: tuple[nn.Module, nn.Module]) -> list[Any]:
    """Tell the tensors of two networks apart, and how often torch saw each written on."""
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
