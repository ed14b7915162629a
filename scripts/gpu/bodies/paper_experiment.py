"""The experiment of the paper as a whole, by faigfast and in the authors' way."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from faigfast.bench.experiment import WAYS, experiment


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a backend and precision; each times the authors' way too."""
    return {" ".join(way): partial(measure, way) for way in WAYS}


def measure(way: tuple[str, str], device: str = "cuda", **options: Any) -> dict[str, Any]:
    """Time one way."""
    result = experiment(device, ways=[way], progress=False, **options)
    return {"rows": [asdict(row) for row in result.rows], "text": result.table()}
