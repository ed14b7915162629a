"""Training of one network on degraded patches; a killed run resumes from its saved state."""

import hashlib
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from faigfast.data.degradations import Degradation
from faigfast.data.degradations.recipe import Function
from faigfast.data.patches import Patches
from faigfast.io.atomic import write_json, write_text
from faigfast.io.parts import Parts
from faigfast.io.progress import progress_bar
from faigfast.io.tensor_file import write_safetensors
from faigfast.training.frozen_entries import FrozenEntries
from faigfast.training.saved_state import load_state, save_state

SAVE_EVERY = 100  # iterations: the most that a kill or Ctrl-C loses
LOG_EVERY = 100
BLUR, NOISE = (2.0,), (0.1,)  # of a pair's target, unless recipes are given
Optimize = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
SEED_STRIDE = 1_000_003  # iterations between the streams of two seeds; torch takes 32 bits


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of one training.

    Parameters
    ----------
    iterations : int
        Number of steps of Adam (β = 0.9, 0.99) on the L1 loss.
    learning_rate : float
        At the start; it falls to 1e-7 along a cosine.
    batch : int
        Patches in a step.
    ema_decay : float
        Decay of the exponential moving average of the weights, the result of the training.
    seed : int
        Seed of the patches.

    Notes
    -----
    Source: the authors' options (Adam, cosine, EMA 0.999, batches of 16), far fewer iterations.
    """

    iterations: int
    learning_rate: float
    batch: int = 16
    ema_decay: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field once."""
        for name, count in (("iterations", self.iterations), ("batch", self.batch)):
            if count < 1:
                raise ValueError(f"{name} is {count}; expected a positive integer")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(
                f"learning_rate is {self.learning_rate}; expected a positive finite number"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; expected a number in [0, 1)")


def train(
    network: nn.Module,
    patches: Patches,
    schedule: Schedule,
    folder: str | os.PathLike[str],
    *,
    recipe: dict[str, Any] | None = None,
    trainable: Mapping[str, Tensor] | None = None,
    optimizer: Optimize | str = "Adam",
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Train a network, saving its state every 100 iterations; call again to resume.

    Parameters
    ----------
    network : nn.Module
        Maps [N, C, h, w] to [N, C, H, W]; training starts from its weights, unless `folder` holds
        a saved state, and changes them.
    patches : Patches
        Source of the batches.
    schedule : Schedule
        Length and rate.
    folder : path-like
        Receives `state.part` and `run.json`, from which the training resumes, and `log.jsonl`
        (iteration, mean loss, rate, seconds per iteration).
    recipe : dict, optional
        Whatever else defines the run, in JSON's types; a saved state of another run is refused.
    trainable : mapping of str to Tensor, optional
        State-dict key to a bool mask of the tensor's first dimensions: the entries that learn.
        All other entries stay the same to the bit, whatever the optimiser does (momentum, weight
        decay), and the network trains in eval mode. None: every parameter.
    optimizer : str or callable
        Name of a class of `torch.optim`, or a function (parameters, rate) -> optimiser.
    overwrite : bool
        Discard the state in `folder`, of this run or another, and start again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict of str to Tensor
        The state dict of averaged weights.

    Raises
    ------
    ValueError
        If the saved state in `folder` belongs to another run, the optimiser is unknown, or a mask
        belongs to no parameter or does not fit it.
    FloatingPointError
        If the loss is not finite.
    """
    folder = Path(folder)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train(trainable is None)
    frozen = FrozenEntries(network, trainable)
    make_optimiser = check_optimizer(optimizer)
    optimiser = make_optimiser(frozen.parameters, schedule.learning_rate)
    identity = {**asdict(schedule), **_optimiser_description(optimiser), **(recipe or {})}
    identity = json.loads(json.dumps(identity))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.iterations, 1e-7)
    average = AveragedModel(network, avg_fn=partial(_growing_average, schedule.ema_decay))
    log: list[dict[str, float]] = []
    done = 0

    parts = Parts(folder, identity, overwrite)
    if overwrite:
        parts.discard()
    if saved := load_state(parts):
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimizer"])
        cosine.load_state_dict(saved["cosine"])
        average.load_state_dict(saved["average"])
        log, done = saved["log"], saved["done"]
        _write_log(folder, log)  # a kill may have come between the state and its log

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizer": optimiser.state_dict(),
            "cosine": cosine.state_dict(),
            "average": average.state_dict(),
            "log": log,
            "done": done,
        }
        save_state(parts, state)
        _write_log(folder, log)

    losses: list[float] = []
    start = time.perf_counter()
    bar = progress_bar(
        total=schedule.iterations,
        initial=done,
        desc=folder.name,
        unit="it",
        disable=not progress,
    )
    with bar:
        while done < schedule.iterations:
            lq, gt = patches.batch(schedule.batch, (schedule.seed * SEED_STRIDE + done) % 2**32)
            output = network(lq.to(memory_format=torch.channels_last))
            loss = F.l1_loss(output, gt)
            network.zero_grad(set_to_none=True)
            loss.backward()
            frozen.mask_gradients()
            losses.append(loss.item())
            if not losses[-1] < float("inf"):
                raise FloatingPointError(f"the loss is {losses[-1]} at iteration {done}")
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            frozen.restore()
            cosine.step()
            average.update_parameters(network)
            done += 1
            bar.update()
            if done % LOG_EVERY == 0 or done == schedule.iterations:
                mean = sum(losses) / len(losses)
                seconds = (time.perf_counter() - start) / len(losses)
                log.append({"iteration": done, "loss": mean, "rate": rate, "seconds": seconds})
                bar.set_postfix(loss=f"{mean:.5f}")
                losses, start = [], time.perf_counter()
            if done % SAVE_EVERY == 0 or done == schedule.iterations:
                save()
    return average.module.state_dict()


def _growing_average(decay: float, average: Tensor, value: Tensor, count: Tensor) -> Tensor:
    """Average with a decay that grows: a short run forgets its first iterations."""
    return average.lerp(value, 1 - min(decay, (1 + int(count)) / (10 + int(count))))


def check_optimizer(optimizer: Optimize | str) -> Optimize:
    """Give the function that makes an optimiser; refuse names without a usable class."""
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer == "Adam":
        return partial(torch.optim.Adam, betas=(0.9, 0.99))
    kind: Any = getattr(torch.optim, optimizer, None)
    steps = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    others = {getattr(torch.optim, n, None) for n in ("Optimizer", "LBFGS", "SparseAdam", "Muon")}
    if not steps or kind in others:
        raise ValueError(
            f"optimizer is {optimizer!r}; expected a class of torch.optim that steps by dense "
            "gradients alone, such as Adam"
        )
    return kind


def _optimiser_description(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Describe the optimiser itself, since a function that makes one has no description."""
    kind = type(optimiser)
    defaults = sorted(optimiser.defaults.items())
    options = ", ".join(f"{name}={value!r}" for name, value in defaults)
    return {"optimizer": f"{kind.__module__}.{kind.__qualname__}({options})"}


def _write_log(folder: Path, log: list[dict[str, float]]) -> None:
    write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in log))


def train_pair(
    folder: str | os.PathLike[str],
    network: nn.Module,
    images: dict[str, Tensor],
    *,
    scale: int,
    baseline: Schedule,
    target: Schedule,
    blur: tuple[float, ...] | None = None,
    noise: tuple[float, ...] | None = None,
    recipes: Sequence[Degradation | str | Function] = (),
    probability: float = 0.5,
    patch: int = 32,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Path, Path]:
    """Train a baseline on clean images, then the target from it on degraded ones.

    Parameters
    ----------
    folder : path-like
        Receives `baseline.safetensors`, `target.safetensors`, `training.json` (all settings of the
        run) and one folder of state and log for each network. Called again with the same arguments
        it resumes, or returns the finished files and leaves their record as it is.
    network : nn.Module
        With fresh weights, enlarging by `scale`; changed.
    images : dict of str to Tensor
        Photographs [C, H, W] in [0, 1] by name.
    scale, patch, blur, noise, recipes, probability
        As in `Patches`; the baseline sees clean images alone. By default blur (2.0,) and noise
        (0.1,), none of them where recipes are given. A training with a lambda, a function within a
        function or an object as a recipe cannot be resumed, since nothing identifies it.
    baseline, target : Schedule
        Schedules of the two trainings.
    overwrite : bool
        Discard the states in `folder`, of this run or another, and start again.
    progress : bool
        Show progress bars.

    Returns
    -------
    baseline, target : pathlib.Path
        The two files.

    Raises
    ------
    ValueError
        If `folder` holds another run, an argument is out of range or no photograph holds a patch,
        or a training is to be resumed whose recipe nothing identifies.
    """
    folder = Path(folder)
    recipe: dict[str, Any] = {
        "network": f"{type(network).__name__}, {len(network.state_dict())} tensors, "
        f"{sum(p.numel() for p in network.parameters())} parameters",
        "photographs": {
            name: [*image.shape, hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16]]
            for name, image in images.items()
        },
        "scale": scale,
        "patch": patch,
    }
    degradations = [Degradation.of(recipe, scale) for recipe in recipes]
    blur = blur if blur is not None else () if recipes else BLUR
    noise = noise if noise is not None else () if recipes else NOISE
    stages: dict[str, tuple[Schedule, dict[str, Any]]] = {
        "baseline": (baseline, {"blur": (), "noise": (), "probability": 0.0}),
        "target": (target, {"blur": blur, "noise": noise, "probability": probability}),
    }
    # Both are made before the first training, to check the target's arguments too.
    patches = {
        name: Patches(
            images.values(),
            scale=scale,
            patch=patch,
            recipes=degradations if name == "target" else (),
            **degradation,
        )
        for name, (_, degradation) in stages.items()
    }
    if degradations:  # absent otherwise: trainings of older versions have none
        stages["target"][1]["recipes"] = _identities(degradations, folder, overwrite)
    for name, (schedule, degradation) in stages.items():
        average = train(
            network,
            patches[name],
            schedule,
            folder / name,
            recipe={**recipe, **degradation},
            overwrite=overwrite,
            progress=progress,
        )
        weights = {key: value.contiguous() for key, value in average.items()}
        write_safetensors(folder / f"{name}.safetensors", weights)
        network.load_state_dict(average)
    settings = {
        name: {**asdict(schedule), **degradation}
        for name, (schedule, degradation) in stages.items()
    }
    _record(folder / "training.json", {**recipe, **settings})
    return folder / "baseline.safetensors", folder / "target.safetensors"


def _identities(degradations: Sequence[Degradation], folder: Path, overwrite: bool) -> list[str]:
    """Identify the recipes of a training; refuse to resume where one has no identity."""
    identities = []
    for degradation in degradations:
        identity = degradation.identity
        if identity is None:
            if not overwrite and any((folder / name).exists() for name in ("baseline", "target")):
                raise ValueError(
                    f"{folder} holds a training, and nothing identifies the recipe "
                    f"{degradation.text!r}, so that it cannot be resumed; expected a function of a "
                    "module, or overwrite=True"
                )
            identity = f"{degradation.text} of {uuid.uuid4().hex}"
        identities.append(identity)
    return identities


def _record(path: Path, recipe: dict[str, Any]) -> None:
    """Write the recipe of the pair and the versions, unless the file already has this recipe."""
    recipe = json.loads(json.dumps(recipe))
    try:
        if json.loads(path.read_text(encoding="utf-8")).items() >= recipe.items():
            return
    except (FileNotFoundError, ValueError, AttributeError):  # none, or damaged
        pass
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(path, {**recipe, **versions})
