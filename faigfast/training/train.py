"""Training of one network on degraded patches; a run that is killed goes on where it was saved."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from faigfast.data.patches import Patches
from faigfast.io.atomic import atomic_write, write_json, write_text
from faigfast.io.differences import difference

SAVE_EVERY = 100  # iterations: the most that a kill or Ctrl-C can cost
LOG_EVERY = 100
Optimize = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
SEED_STRIDE = 1_000_003  # iterations between the streams of two seeds; torch takes 32 bits

STATE = "state.pth"  # what a training goes on from


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one network is trained.

    Parameters
    ----------
    iterations : int
        Number of steps of Adam (β = 0.9, 0.99) on the L1 loss.
    learning_rate : float
        At the start; it falls to 1e-7 along a cosine.
    batch : int
        Patches in a step.
    ema_decay : float
        Of the exponential moving average of the weights, which is the result.
    seed : int
        Of the patches.

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
        if min(self.iterations, self.batch) < 1:
            raise ValueError(
                f"iterations {self.iterations} and batch {self.batch} must be positive"
            )
        positive = self.learning_rate > 0 and math.isfinite(self.learning_rate)
        if not positive or not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"learning_rate {self.learning_rate} must be positive and finite, ema_decay "
                f"{self.ema_decay} in [0, 1)"
            )


def train(
    network: nn.Module,
    patches: Patches,
    schedule: Schedule,
    folder: str | os.PathLike[str],
    *,
    recipe: dict[str, Any] | None = None,
    trainable: Mapping[str, Tensor] | None = None,
    optimizer: Optimize | str = "Adam",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Train a network, saving its state every 100 iterations; call it again to go on.

    Parameters
    ----------
    network : nn.Module
        Maps [N, C, h, w] to [N, C, H, W]; its weights are where the training starts, unless
        `folder` holds a saved state, and are changed.
    patches : Patches
        Where batches come from.
    schedule : Schedule
        Length and rate.
    folder : path-like
        Receives `state.pth` and `log.jsonl` (iteration, mean loss, rate, seconds per iteration).
    recipe : dict, optional
        Whatever else defines the run, in JSON's types; a saved state of another is refused.
    trainable : mapping of str to Tensor, optional
        State-dict key to a bool mask that fits the tensor's first dimensions: what may change.
        Everything else stays as it is to the bit, whatever the optimiser does with it (momentum,
        weight decay), and the network trains in eval mode. None: every parameter.
    optimizer : str or callable
        Name of a class of `torch.optim`, or what makes an optimiser of parameters and a rate.
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
        is of no parameter or fits none.
    FloatingPointError
        If the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train(trainable is None)
    held = _Held(network, trainable)
    make = check_optimizer(optimizer)
    optimiser = make(held.parameters, schedule.learning_rate)
    identity = {**asdict(schedule), **_described(optimiser), **(recipe or {})}
    identity = json.loads(json.dumps(identity))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.iterations, 1e-7)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    log: list[dict[str, float]] = []
    done = 0

    state_path = folder / STATE
    check_state(state_path, identity)
    if state_path.exists():
        saved = _read_state(state_path)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimizer"])
        cosine.load_state_dict(saved["cosine"])
        average, log, done = saved["average"], saved["log"], saved["done"]

    def save() -> None:
        with atomic_write(state_path) as path:
            torch.save(
                {
                    "identity": identity,
                    "network": network.state_dict(),
                    "optimizer": optimiser.state_dict(),
                    "cosine": cosine.state_dict(),
                    "average": average,
                    "log": log,
                    "done": done,
                },
                path,
            )
        write_text(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log))

    losses: list[float] = []
    start = time.perf_counter()
    bar = tqdm(
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
            held.mask_gradients()
            losses.append(loss.item())
            if not losses[-1] < float("inf"):
                raise FloatingPointError(f"the loss is {losses[-1]} at iteration {done}")
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            held.restore()
            cosine.step()
            # A decay that grows with the iterations lets a short run forget its start.
            decay = min(schedule.ema_decay, (1 + done) / (10 + done))
            with torch.no_grad():
                for key, value in network.state_dict().items():
                    if value.is_floating_point():
                        average[key].lerp_(value, 1 - decay)
                    else:
                        average[key].copy_(value)
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
    return average


def check_state(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse the state of a training that differs in what is known of this one's identity.

    Raises
    ------
    ValueError
        If there is such a file, saying what differs.
    """
    if not path.exists():
        return
    saved = _read_state(path)["identity"]
    known = json.loads(json.dumps(dict(identity)))
    if change := difference({key: saved.get(key) for key in known}, known):
        raise ValueError(
            f"{path} belongs to another run: {change}; remove it, overwrite it or choose another "
            "folder"
        )


class _Held:
    """What a training must leave alone.

    Parameters
    ----------
    network : nn.Module
        As it is before the first step, in all that is held.
    trainable : mapping of str to Tensor, optional
        As in `train`.
    """

    def __init__(self, network: nn.Module, trainable: Mapping[str, Tensor] | None) -> None:
        named = dict(network.named_parameters())
        self.parameters = list(named.values())
        self.masks: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        if trainable is None:
            return
        for key, mask in trainable.items():
            if key not in named:
                raise ValueError(f"trainable holds {key!r}, which is no parameter of the network")
            value = named[key]
            if mask.dtype != torch.bool or mask.shape != value.shape[: mask.ndim]:
                raise ValueError(
                    f"trainable holds {list(mask.shape)} of {mask.dtype} for {key!r}; expected a "
                    f"bool mask that fits {list(value.shape)}"
                )
            mask = mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim)).to(value.device)
            self.masks.append((value, mask, value.detach().clone()))
        self.parameters = [value for value, *_ in self.masks]

    def mask_gradients(self) -> None:
        """Let no held entry reach the optimiser's sums."""
        for value, mask, _ in self.masks:
            if value.grad is not None:
                value.grad.mul_(mask)

    @torch.no_grad()
    def restore(self) -> None:
        """Put held entries back that the optimiser moved without a gradient."""
        for value, mask, kept in self.masks:
            value.copy_(torch.where(mask, value, kept))


def check_optimizer(optimizer: Optimize | str) -> Optimize:
    """Give what makes an optimiser; refuse a name that is none of torch.optim that serves."""
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


def _described(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Say what was made rather than what made it: a function tells nothing of itself."""
    kind = type(optimiser)
    defaults = sorted(optimiser.defaults.items())
    options = ", ".join(f"{name}={value!r}" for name, value in defaults)
    return {"optimizer": f"{kind.__module__}.{kind.__qualname__}({options})"}


def _read_state(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, weights_only=True)
        if "identity" in saved:
            return saved
    except Exception as problem:  # torch raises many types for a damaged file
        raise ValueError(
            f"{path} cannot be read as the state of a training ({type(problem).__name__}); remove "
            "it to start again"
        ) from problem
    raise ValueError(f"{path} is not the state of a training; remove it to start again")


def train_pair(
    folder: str | os.PathLike[str],
    network: nn.Module,
    images: dict[str, Tensor],
    *,
    scale: int,
    baseline: Schedule,
    target: Schedule,
    blur: tuple[float, ...] = (2.0,),
    noise: tuple[float, ...] = (0.1,),
    probability: float = 0.5,
    patch: int = 32,
    progress: bool = False,
) -> tuple[Path, Path]:
    """Train a baseline on clean images, then the target from it on degraded ones.

    Parameters
    ----------
    folder : path-like
        Receives `baseline.safetensors`, `target.safetensors`, `training.json` (everything that
        made them) and one folder of state and log for each. Called again with the same arguments
        it goes on where it stopped, or returns what is finished, whose record stays as it was.
    network : nn.Module
        With fresh weights, enlarging by `scale`; changed.
    images : dict of str to Tensor
        Photographs [C, H, W] in [0, 1] by name.
    scale, patch, blur, noise, probability
        As in `Patches`; the baseline sees neither blur nor noise.
    baseline, target : Schedule
        Of the two trainings.
    progress : bool
        Show progress bars.

    Returns
    -------
    baseline, target : pathlib.Path
        The two files.

    Raises
    ------
    ValueError
        If `folder` holds another run, an argument is out of range or no photograph holds a patch.
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
    stages: dict[str, tuple[Schedule, dict[str, Any]]] = {
        "baseline": (baseline, {"blur": (), "noise": (), "probability": 0.0}),
        "target": (target, {"blur": blur, "noise": noise, "probability": probability}),
    }
    # Both before the first training, since they check the target's arguments too.
    patches = {
        name: Patches(images.values(), scale=scale, patch=patch, **degradation)
        for name, (_, degradation) in stages.items()
    }
    for name, (schedule, degradation) in stages.items():
        average = train(
            network,
            patches[name],
            schedule,
            folder / name,
            recipe={**recipe, **degradation},
            progress=progress,
        )
        with atomic_write(folder / f"{name}.safetensors") as path:
            save_file({key: value.contiguous() for key, value in average.items()}, path)
        network.load_state_dict(average)
    settings = {name: {**asdict(part[0]), **part[1]} for name, part in stages.items()}
    _record(folder / "training.json", {**recipe, **settings})
    return folder / "baseline.safetensors", folder / "target.safetensors"


def _record(path: Path, recipe: dict[str, Any]) -> None:
    """Write what made the pair and with what, unless that stands there from the first time."""
    recipe = json.loads(json.dumps(recipe))
    try:
        if json.loads(path.read_text(encoding="utf-8")).items() >= recipe.items():
            return
    except (FileNotFoundError, ValueError, AttributeError):  # none, or damaged
        pass
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(path, {**recipe, **versions})
