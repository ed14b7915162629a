"""The training of a baseline from a target, measured as it goes; a killed run resumes."""

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches
from faigfast.filters.index import FilterIndex
from faigfast.integration.cautions import MOST_BARRIER
from faigfast.integration.padding import middle, reflected
from faigfast.io.parts import Parts
from faigfast.io.progress import progress_bar
from faigfast.models.distance import Distance
from faigfast.models.state import copy_of, undisturbed
from faigfast.training.derivation import (
    Derivation,
    Measurement,
    abilities,
    clean_settled,
    forgotten_reason,
    has_diverged,
)
from faigfast.training.held_out import CLEAN, HeldOut, enlarged
from faigfast.training.saved_state import load_state, save_state
from faigfast.training.trainer import SEED_STRIDE, Schedule

MEASURE_EVERY = 25  # iterations; a kill loses no more than these
EMA_DECAY = 0.97
WARM_UP = 0.1  # of the iterations: the first steps of Adam would move every weight alike
LEAST_RAMP = 20  # iterations
HALVES = (torch.float16, torch.bfloat16)  # trained in float32


@dataclass(frozen=True)
class Plan:
    """Data and settings of one derivation.

    Parameters
    ----------
    schedule : Schedule
        Length and rate.
    patches : Patches
        Source of batches, clean and with recipes to be kept.
    clean_patches : Patches
        Of the same photographs, without recipes.
    crops : HeldOut
        Held-out crops of all degradations.
    kept, forgotten : dict of str to Degradation
        By text.
    only_abilities : bool
        Whether to drop forgotten degradations that the target does not remove.
    own_output : bool
        Whether the ground truth is the target's own output.
    settings : dict
        For the record.
    """

    schedule: Schedule
    patches: Patches
    clean_patches: Patches
    crops: HeldOut
    kept: dict[str, Degradation]
    forgotten: dict[str, Degradation]
    only_abilities: bool
    own_output: bool
    settings: dict[str, Any]


class DerivationRun:
    """One derivation: trains a copy of the target, and measures it on held-out crops.

    Parameters
    ----------
    target : nn.Module
        Unwrapped; unchanged.
    plan : Plan
        Data and settings.
    parts : Parts, optional
        Receives the state.
    """

    def __init__(self, target: nn.Module, plan: Plan, parts: Parts | None) -> None:
        self.target, self.plan, self.parts = target, plan, parts
        self.network = _trainable_copy(target)
        self.original = copy_of(target).eval()
        self.learned = [p for p in self.network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.learned]
        rate = plan.schedule.learning_rate
        self.optimiser = torch.optim.Adam(self.learned, rate, betas=(0.9, 0.99))
        self.rates = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, partial(relative_rate, iterations=plan.schedule.iterations)
        )
        self.done = 0
        self.history: list[Measurement] = []
        self.best: tuple[int, list[Tensor]] | None = None  # iteration, averaged weights
        self.reason = ""
        self.diverged = False
        bicubic, measured = plan.crops.psnr_without_network(), plan.crops.psnr(target)
        forgotten = tuple(plan.forgotten)
        if plan.only_abilities:
            forgotten = abilities(measured, bicubic, forgotten)
        self.forgotten = forgotten
        self.crops = plan.crops.only([*forgotten, *plan.kept])
        self.psnr_of_target = {name: measured[name] for name in self.crops.lq}
        self.bicubic = {name: bicubic[name] for name in self.crops.lq}

    def finish(self, progress: bool) -> nn.Module:
        """Train up to the end, and give the baseline with its record."""
        if self.parts is not None and (saved := load_state(self.parts)):
            self._restore(saved)
        bar = progress_bar(
            total=self.plan.schedule.iterations, initial=self.done, desc="baseline", unit="it",
            disable=not progress,
        )  # fmt: skip
        with bar, undisturbed(self.network):
            while not self.reason:
                self._step()
                bar.update()
                if self.reason or self.done % MEASURE_EVERY == 0 or self._is_last():
                    self._measure()
                    bar.set_postfix({name: f"{v:.2f} dB" for name, v in self._last().items()})
                    self._save()
        return self._result()

    def _step(self) -> None:
        """Take one step of the optimiser; a loss that is not finite ends the training."""
        schedule = self.plan.schedule
        seed = (schedule.seed * SEED_STRIDE + self.done) % 2**32
        x, gt = self._batch(seed)
        place = self.learned[0]
        x, gt = (value.to(place.device, place.dtype) for value in (x, gt))
        x = reflected(x, self.plan.crops.pad).to(memory_format=torch.channels_last)
        output = middle(self.network(x), gt.shape[2:], self.plan.crops.pad)
        loss = F.l1_loss(output, gt)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.done += 1
        if not loss.isfinite():
            self.diverged = True
            self.reason = f"the loss is {float(loss.detach())} at iteration {self.done}"
            return
        self.optimiser.step()
        self.rates.step()
        decay = min(EMA_DECAY, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for mean, value in zip(self.average, self.learned, strict=True):
                mean.lerp_(value, 1 - decay)

    def _batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """Draw inputs [N, C, h, w], and what outputs are compared with."""
        x, gt = self.plan.patches.batch(self.plan.schedule.batch, seed)
        if not self.plan.own_output:
            return x, gt
        scale, names = self.plan.crops.scale, self.forgotten
        with torch.no_grad():
            gt = self._own_output(x)
        # The second half of the batch is clean and gets degradations to be let through.
        half = len(x) // 2 if names else len(x)
        if half < len(x):
            name = names[seed % len(names)]
            sharp = self.plan.clean_patches.batch(len(x) - half, seed)[1]
            clean = Degradation(scale=scale)(sharp)
            degraded = self.plan.forgotten[name](sharp, seed)
            with torch.no_grad():
                own = self._own_output(clean)
            x = torch.cat([x[:half], degraded])
            gt = torch.cat([gt[:half], own + enlarged(degraded - clean, scale)])
        return x, gt

    def _own_output(self, x: Tensor) -> Tensor:
        """Give the target's output on inputs, without the padding."""
        place, pad = next(self.original.parameters()), self.plan.crops.pad
        sides = [self.plan.crops.scale * side for side in x.shape[2:]]
        output = self.original(reflected(x.to(place.device, place.dtype), pad))
        return middle(output, sides, pad).to("cpu", torch.float32)

    def _is_last(self) -> bool:
        return self.done >= self.plan.schedule.iterations

    def _last(self) -> dict[str, float]:
        """PSNR of the last measurement."""
        return self.history[-1].psnr if self.history else {}

    def _measure(self) -> None:
        """Measure the averaged weights; set the reason to stop, if there is one."""
        if self.reason:
            return
        psnr = self.crops.psnr(self._network_of(self.average))
        self.history.append(Measurement(self.done, psnr))
        if self.best is None or psnr[CLEAN] >= max(m.psnr[CLEAN] for m in self.history):
            self.best = (self.done, [value.clone() for value in self.average])
        if has_diverged(self.history, self.psnr_of_target):
            self.diverged = True
            self.reason = (
                f"clean crops lost {self.psnr_of_target[CLEAN] - psnr[CLEAN]:.1f} dB at iteration "
                f"{self.done}"
            )
            return
        why = forgotten_reason(self.history, self.bicubic, self.psnr_of_target, self.forgotten)
        if why and clean_settled(self.history) and self._barrier_is_low():
            self.reason = f"stopped since the clean PSNR no longer rises and {why}"
        elif self._is_last():
            self.reason = "stopped at the end of the schedule" + (f": {why}" if why else "")

    def _barrier_is_low(self) -> bool:
        barriers = self.crops.barriers(self._network_of(self.average), self.target)
        return max(barriers.values()) <= MOST_BARRIER

    def _network_of(self, weights: list[Tensor]) -> nn.Module:
        """Give a copy of the target with these weights, in the target's types."""
        network = copy_of(self.target)
        names = [name for name, p in self.network.named_parameters() if p.requires_grad]
        own = dict(network.named_parameters())
        with torch.no_grad():
            for name, value in zip(names, weights, strict=True):
                own[name].copy_(value)
        return network.eval()

    def _result(self) -> nn.Module:
        """Give the baseline: the last weights, or the best where the training diverged."""
        iterations, weights = self.done, self.average
        stopped = self.reason
        if self.diverged:
            if self.best is None:
                raise FloatingPointError(
                    f"the training diverged before its first measurement: {self.reason}; expected "
                    f"a lower learning_rate than {self.plan.schedule.learning_rate:g}"
                )
            iterations, weights = self.best
            stopped = (
                f"DIVERGED: {self.reason}; kept the best weights on clean crops, of iteration "
                f"{iterations}: expected a lower learning_rate than "
                f"{self.plan.schedule.learning_rate:g}"
            )
        baseline: Any = self._network_of(weights)
        layers = FilterIndex.of(baseline).layers
        baseline.faigfast_derivation = Derivation(
            iterations=iterations,
            stopped=stopped,
            diverged=self.diverged,
            target=self.psnr_of_target,
            baseline=self.crops.psnr(baseline),
            bicubic=self.bicubic,
            forgotten=self.forgotten,
            kept=tuple(self.plan.kept),
            barrier=self.crops.barriers(baseline, self.target),
            distance=Distance.between(baseline, self.target, layers).network,
            measurements=tuple(self.history),
            settings=self.plan.settings,
        )
        return baseline

    def _save(self) -> None:
        """Save the state; without the optimiser where the training is over."""
        if self.parts is None:
            return
        state: dict[str, Any] = {
            "done": self.done,
            "average": self.average,
            "best": self.best,
            "history": [asdict(m) for m in self.history],
            "reason": self.reason,
            "diverged": self.diverged,
        }
        if not self.reason:
            state["learned"] = [value.detach() for value in self.learned]
            state["optimiser"] = self.optimiser.state_dict()
            state["rates"] = self.rates.state_dict()
        save_state(self.parts, state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        for name in ("done", "reason", "diverged", "best"):
            setattr(self, name, state[name])
        self.history = [Measurement(**m) for m in state["history"]]
        for mean, value in zip(self.average, state["average"], strict=True):
            mean.copy_(value)
        if not self.reason:
            with torch.no_grad():
                for parameter, value in zip(self.learned, state["learned"], strict=True):
                    parameter.copy_(value)
            self.optimiser.load_state_dict(state["optimiser"])
            self.rates.load_state_dict(state["rates"])


def relative_rate(done: int, iterations: int) -> float:
    """Give the learning rate after `done` steps, of the highest: a ramp, then a cosine to 0."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * done / iterations)
    return min(1.0, (done + 1) / max(LEAST_RAMP, WARM_UP * iterations)) * cosine


def _trainable_copy(target: nn.Module) -> nn.Module:
    """Copy a network for training in eval mode; half precision becomes float32."""
    network = copy_of(target).eval()
    if any(p.dtype in HALVES for p in network.parameters()):
        network = network.float()
    for parameter in network.parameters():  # leaves, whatever the caller's mode
        parameter.grad = None
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
