"""The time of rankings, measurements and trainings, from a few timed restorations."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from torch import Tensor, nn

import faigfast
from faigfast.analysis.baselines import WEIGHT_METHODS
from faigfast.analysis.evaluation import Crops, measure, restore
from faigfast.analysis.study import Study
from faigfast.cli.other_run import PARTS
from faigfast.cli.output import note
from faigfast.io.progress import duration
from faigfast.io.text_table import counted

LONG = 10.0  # seconds; a shorter command starts without a remark
QUICKER = 60.0  # seconds from which on the remark names a quicker way
TIMED = 8  # most images in the timed batch
REPEATS = 3  # of the timing, whose middle counts: who shares the cores now does so later too
ENOUGH = 1.0  # seconds after which it is not repeated
FEW = 0.1  # seconds that the crops of a timed attribution take to restore
CALIBRATED = 4  # points of the timed attribution; networks take 0.7 to 4 restorations a point
STEP = 4.5  # of a training, in restorations of as many pixels


class Workload:
    """Sums up the work of a command, from the time of a few restorations.

    Parameters
    ----------
    network : nn.Module
        The target.
    data : Crops
        Crops of the command, all of one size.
    metrics : sequence of str
        What is measured of a network.
    border : int
        Pixels left out of the measurement.
    """

    def __init__(
        self, network: nn.Module, data: Crops, metrics: Sequence[str] = ("psnr",), border: int = 0
    ) -> None:
        name, lq = next(iter(data.lq.items()))
        one = seconds_of(lambda: restore(network, lq[:1], data.pad, data.gt.shape[2:]))
        count = max(1, min(TIMED, int(ENOUGH / one)))  # a slow network restores one
        timed = replace(data.part(slice(0, count)), lq={name: lq[:count]})
        self.pixels = lq.shape[-2] * lq.shape[-1]
        restored: dict[str, Tensor] = {}

        def restore_timed() -> None:
            restored[name] = restore(network, timed.lq[name], data.pad, data.gt.shape[2:])

        def measure_timed() -> None:
            measure(network, timed, border=border, metrics=metrics, reference=restored)

        few = max(1, min(count, int(FEW / one)))  # small crops share the costs of a call
        self.crops = (lq[:few], data.gt[:few])
        self.restoration = seconds_of(restore_timed) / len(timed.names)
        self.measurement = seconds_of(measure_timed) / len(timed.names)
        self.point: float | None = None  # seconds of an image at a point, once measured
        self.call = 0.0  # seconds of an attribution apart from its points
        self.attribution = 0.0  # seconds
        self.measuring = 0.0
        self.training = 0.0
        self.networks = 0
        self.trainings: list[str] = []

    def attribute(self, study: Study, data: Crops, methods: Sequence[str] = ("faig",)) -> None:
        """Add rankings by methods with gradients, from timed attributions of a few crops."""
        if self.point is None:
            self._time_points(study)
        assert self.point is not None
        walks = sum(method not in WEIGHT_METHODS for method in methods)
        images = len(data.names) * len(data.lq)
        self.attribution += walks * (self.call + study.steps * images * self.point)

    def _time_points(self, study: Study) -> None:
        """Time attributions of one and of more points; the difference is that of points alone."""
        run = partial(faigfast.attribute, study.baseline, study.target, self.crops)
        images = len(self.crops[0])
        if self.restoration > ENOUGH / CALIBRATED:  # all else counts little
            self.point = seconds_of(lambda: run(steps=1, **study.options)) / (2 * images)
            return
        run(steps=1, **study.options)  # captures the network
        one, more = (
            seconds_of(lambda points=points: run(steps=points, **study.options))  # type: ignore[misc]
            for points in (1, 1 + CALIBRATED)
        )
        self.point = max(more - one, 0.0) / (CALIBRATED * images)
        self.call = one

    def measure(self, networks: int, data: Crops) -> None:
        """Add measurements of networks on crops."""
        self.networks += networks
        self.measuring += networks * len(data.names) * len(data.lq) * self.measurement

    def train(self, trainings: int, iterations: int, batch: int, patch: int) -> None:
        """Add trainings on patches of `patch` low-resolution pixels a side."""
        self.trainings.append(f"{trainings} × {counted(iterations, 'iteration')}")
        images = trainings * iterations * batch * patch**2 / self.pixels
        self.training += STEP * images * self.restoration

    @property
    def seconds(self) -> float:
        """Give the time of all that was added."""
        return self.attribution + self.measuring + self.training

    def announce(self, folder: str | Path, quicker: str) -> None:
        """Note the work, the time and a quicker way; nothing where it is short.

        Parameters
        ----------
        folder : path-like
            Of the results; what is finished there is not subtracted.
        quicker : str
            Options that make the command quicker, such as "--measured 4"; "" where there are none.
        """
        if self.seconds >= LONG:
            finished = len(list(Path(folder, PARTS).glob("*.part")))
            networks = [counted(self.networks, "network")] if self.networks else []
            counts = [*self.trainings, *networks]
            note(announcement(counts, self.seconds, quicker, finished))


def announcement(counts: Sequence[str], seconds: float, quicker: str, finished: int = 0) -> str:
    """Write the remark.

    Examples
    --------
    >>> announcement(["22 networks"], 240, "--measured 4")
    '22 networks, about 4 min; `--measured 4` is quicker'
    """
    text = f"{', '.join(counts)}, about {duration(seconds)}"
    if finished:
        text += f" from the start, less {counted(finished, 'finished part')}"
    return f"{text}; `{quicker}` is quicker" if quicker and seconds >= QUICKER else text


def seconds_of(work: Callable[[], object]) -> float:
    """Time some work, the median of a few times."""
    times: list[float] = []
    while not times or (len(times) < REPEATS and sum(times) < ENOUGH):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
