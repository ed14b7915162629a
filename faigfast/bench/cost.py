"""Cost of a call: fixed, for an image, for a point, and at the first time."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from faigfast.bench.first_cost import FirstCall, first_table, measure_first
from faigfast.bench.rivals import own
from faigfast.bench.workloads import workload
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import aligned

FAMILY = "srresnet-48"  # SRResNet 64×16 ×2 on 48² LR
POINTS, IMAGES = (8, 16, 32), (1, 3)
BACKENDS = ("torch", "cpu")
CALL_POINTS = 10  # points of the call, of one image, whose fixed share is printed
HEADER = ("backend", "images", "points", "seconds", "fitted")


@dataclass
class TimedCalls:
    """Timed calls of one backend and number of images and points.

    Attributes
    ----------
    backend : str
        Of `faigfast.attribute`.
    images, points : int
        N and P.
    seconds : list of float
        Time of every repeat, after two calls on the same pair.
    """

    backend: str
    images: int
    points: int
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)


@dataclass
class Cost:
    """Seconds of calls, and a linear fit.

    Attributes
    ----------
    samples : list of TimedCalls
        Every backend with every number of images and points.
    first : list of FirstCall
        First calls of every backend.
    family : str
        Workload.
    machine, versions : dict
        Processor, GPU and package versions.
    command : list of str
        The command line.
    """

    samples: list[TimedCalls]
    first: list[FirstCall] = field(default_factory=list)
    family: str = FAMILY
    machine: dict[str, Any] = field(default_factory=describe_machine)
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def fit(self, backend: str) -> tuple[float, float, float]:
        """Fit seconds per call, per image (its two end losses) and per point of an image.

        A least-squares fit for one backend minimises the relative errors, so that long calls do not
        decide alone.
        """
        rows = [sample for sample in self.samples if sample.backend == backend]
        terms = np.array([[1, row.images, row.images * row.points] for row in rows], float)
        seconds = np.array([row.median for row in rows])
        coefficients = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(rows)), rcond=None)[0]
        return float(coefficients[0]), float(coefficients[1]), float(coefficients[2])

    def table(self) -> str:
        """Align the figures as text, and say the fixed cost of a call of ten points."""
        cells, remarks = [], []
        for backend in dict.fromkeys(sample.backend for sample in self.samples):
            call, image, point = self.fit(backend)
            for row in (sample for sample in self.samples if sample.backend == backend):
                fitted = call + row.images * (image + row.points * point)
                case = (row.backend, str(row.images), str(row.points))
                cells.append((*case, f"{row.median:.3f}", f"{fitted:.3f}"))
            share = call / (call + image + CALL_POINTS * point)
            remarks.append(
                f"{backend}: {1e3 * call:.1f} ms per call (fixed), {1e3 * image:.1f} ms per image, "
                f"{1e3 * point:.1f} ms per point of an image; "
                f"the fixed time is {share:.1%} of a call of one image and {CALL_POINTS} points"
            )
        conditions = (
            f"{self.family}², {self.machine['cpu']}, {self.machine['threads']} of "
            f"{self.machine['cores']} cores, {self.machine['instructions']}, "
            f"torch {self.versions['torch']}\n"
            "seconds: median of the timed calls, after two untimed calls on the same networks\n"
            "fitted: fixed time + images · (time per image + points · time per point)"
        )
        parts = ["", first_table(self.first)] if self.first else []
        return "\n".join([aligned(HEADER, cells), "", *remarks, conditions, *parts])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


def measure_cost(
    family: str = FAMILY,
    *,
    points: Sequence[int] = POINTS,
    images: Sequence[int] = IMAGES,
    backends: Sequence[str] = BACKENDS,
    repeats: int = 5,
    progress: bool = True,
) -> Cost:
    """Time first calls, and calls of several numbers of points and images, in turn.

    Parameters
    ----------
    family : str
        A workload's name without its number of images, such as "srresnet-48".
    points, images : sequence of int
        P and N, in all combinations.
    backends : sequence of str
        Of `faigfast.attribute`.
    repeats : int
        Timed calls of each, and processes for the first calls of each backend.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If `repeats` is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected a positive integer")
    samples = [TimedCalls(b, n, p) for b in backends for n in images for p in points]
    runs = [own(s.backend, workload(f"{family}x{s.images}").problem(s.points)) for s in samples]
    total = len(runs) * (2 + repeats) + len(backends) * repeats
    with progress_bar(total=total, unit="call", disable=not progress) as bar:
        first = measure_first(family, CALL_POINTS, backends, repeats, bar.update)
        for run in runs:
            for _ in range(2):
                run()
                bar.update()
        for _ in range(repeats):
            for sample, run in zip(samples, runs, strict=True):
                start = time.perf_counter()
                run()
                sample.seconds.append(time.perf_counter() - start)
                bar.update()
    return Cost(samples, first, family)
