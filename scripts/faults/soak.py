"""Attributions from several threads at once, under changing modes, beside each one alone."""

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from call import Make, draw_images, kinked, pair, smooth
from children import Stopped, watch
from networks import UNUSUAL
from snapshot import changes, modes, network_state
from tally import Tally
from torch import Tensor, nn

NAME = "attributions in threads"
SECONDS = 120.0  # of the soak, without FAULTS_SOAK in the environment
SECONDS_SHORT = 10.0
PATIENCE = 60.0  # seconds without any result, after which threads wait for each other
JOBS = 12  # of every thread
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative L1 errors beside the run alone
MODES: list[Callable[[], AbstractContextManager[Any]]] = [
    contextlib.nullcontext,
    torch.no_grad,
    torch.inference_mode,
    lambda: torch.autocast("cpu", torch.bfloat16),
    lambda: torch.autograd.set_multithreading_enabled(False),
]


def _norms() -> nn.Module:
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
    return nn.Sequential(layers[0], layers[1], nn.GELU(), layers[2])


def _deep() -> nn.Module:
    layers = (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(4))
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers, nn.Conv2d(4, 2, 3, padding=1))


def _attention() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(2),
        nn.TransformerEncoderLayer(30, 2, 16, 0.0, batch_first=True), nn.Unflatten(2, (6, 5)),
        nn.Conv2d(4, 2, 3, padding=1),
    )  # fmt: skip


NETWORKS: list[Make] = [
    smooth, kinked, _norms, _deep, _attention,
    UNUSUAL["that branches on values"],
    UNUSUAL["that counts its calls in a buffer"],
    UNUSUAL["with checkpointing"],
]  # fmt: skip


@dataclass
class Job:
    """A pair of networks with images and options, and the scores that it has alone."""

    networks: tuple[nn.Module, nn.Module]
    batch: dict[str, Any]
    options: dict[str, Any]
    expected: dict[str, Tensor]
    attributor: Any = None

    @property
    def tolerance(self) -> float:
        """Relative L1 error that other memory and other threads may cause."""
        return TOLERANCES[self.batch["gt"].dtype]


def run(random: Random, short: bool) -> Tally:
    """Attribute in threads for some seconds, in a child."""
    seconds = float(os.environ.get("FAULTS_SOAK", SECONDS_SHORT if short else SECONDS))
    complaints: list[str] = []
    for message in watch(_soak, random.randrange(2**31), seconds, patience=PATIENCE):
        complaints.append(message.reason if isinstance(message, Stopped) else message)
    return Tally.of(NAME, complaints)


def draw_job(random: Random) -> Job:
    """Draw a pair and options, and compute its scores alone."""
    dtype = random.choice([torch.float32, torch.float64])
    networks = pair(random.choice(NETWORKS), dtype, random)
    images = random.randint(1, 3)
    x, gt = draw_images(random, dtype, (images, 2, 6, 5))
    backends = ["auto", "torch", "reference"] + ["cpu"] * (dtype == torch.float32)
    options = {
        "rule": random.choice(["midpoint", "left", "graded"]),
        "steps": random.randint(2, 5),
        "backend": random.choice(backends),
        "signed": random.random() < 0.2,
    }
    job = Job(networks, {"lq": {"blur": x, "noise": x.flip(-1)}, "gt": gt}, options, {})
    job.expected = _scores(_attribute(job, {}))
    return job


def _attribute(job: Job, options: dict[str, Any]) -> Any:
    from faigfast import attribute

    return attribute(*job.networks, job.batch, **job.options, **options)


def _scores(result: Any) -> dict[str, Tensor]:
    return {name: result.scores(name).double() for name in result.degradations}


def _soak(sender: Any, seed: int, seconds: float) -> None:
    """Send the fault of every attribution, "" where there is none."""
    warnings.simplefilter("ignore")
    random = Random(seed)
    count = random.randint(2, 4)
    jobs = [[draw_job(random) for _ in range(JOBS)] for _ in range(count)]
    stop, lock = time.monotonic() + seconds, threading.Lock()

    def send(fault: str) -> None:
        with lock:
            sender.send(fault)

    def work(own: list[Job], seed: int) -> None:
        random = Random(seed)
        while time.monotonic() < stop:
            send(_fault_of(random.choice(own), random))

    seeds = [random.randrange(2**31) for _ in range(count + 1)]
    threads = [threading.Thread(target=work, args=args) for args in zip(jobs, seeds, strict=False)]
    for disturb in (_set_globals, _train):
        threads.append(threading.Thread(target=disturb, args=(Random(seeds[-1]), stop, send)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _fault_of(job: Job, random: Random) -> str:
    """Attribute in one of several ways, under one of several modes."""
    before = [network_state(network) for network in job.networks]
    with random.choice(MODES)():
        own_modes = _own_modes()
        try:
            result, way = _in_some_way(job, random)
        except Exception as problem:
            return f"{job.options}: {type(problem).__name__} {problem}"
        if changed := list(changes(own_modes, _own_modes())):
            return f"{way} {job.options}: changed {', '.join(changed)}"
    after = [network_state(network) for network in job.networks]
    if changed := [name for states in zip(before, after, strict=True) for name in changes(*states)]:
        return f"{way} {job.options}: changed {', '.join(changed[:3])}"
    for name, given in _scores(result).items():
        expected = job.expected[name]
        error = float((given - expected).abs().sum() / expected.abs().sum())
        if not error <= job.tolerance:
            return f"{way} {job.options}: scores differ by {error:.1e} from those alone"
    return ""


def _own_modes() -> dict[str, Any]:
    """Give the modes that other threads do not set."""
    return {key: value for key, value in modes().items() if key != "number of threads"}


def _in_some_way(job: Job, random: Random) -> tuple[Any, str]:
    from faigfast import Attributor

    way = random.choice(["attribute", "with memory", "attributor", "refreshed", "with block"])
    if way == "attribute":
        return _attribute(job, {}), way
    if way == "with memory":
        return _attribute(job, {"memory": random.choice([2**22, 2**24, 2**30])}), way
    if way == "with block":
        with Attributor(*job.networks, **job.options) as attributor:
            return attributor(job.batch), way
    if job.attributor is None:
        job.attributor = Attributor(*job.networks, **job.options)
    elif way == "refreshed":
        job.attributor.refresh()
    return job.attributor(job.batch), way


Send = Callable[[str], None]


def _set_globals(random: Random, stop: float, send: Send) -> None:
    """Draw, seed and set the number of threads, as another part of the program may."""
    generator = torch.Generator().manual_seed(3)
    expected = torch.Generator().manual_seed(3)
    while time.monotonic() < stop:
        random.choice(
            [
                lambda: torch.manual_seed(random.randrange(100)),
                lambda: torch.rand(3),
                lambda: torch.set_num_threads(random.randint(1, 3)),
            ]
        )()
        one, other = (torch.rand(5, generator=g) for g in (generator, expected))
        if not torch.equal(one, other):
            send("a generator of another thread was rewound")
        time.sleep(0.002)


def _train(random: Random, stop: float, send: Send) -> None:
    """Train a network of another thread, step by step, and compare with its training alone."""
    losses = list(_training(20))
    while time.monotonic() < stop:
        for step, value in enumerate(_training(20)):
            if abs(value - losses[step]) > 1e-4 * abs(losses[step]):
                send(f"training in another thread went from {losses[step]:g} to {value:g}")
                break
            time.sleep(0.001)


def _training(steps: int) -> Iterator[float]:
    random = Random(5)
    network = pair(smooth, torch.float32, random)[0].train()
    x, gt = draw_images(random, torch.float32)
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        error = (network(x) - gt).square().mean()
        error.backward()
        optimizer.step()
        yield error.item()
