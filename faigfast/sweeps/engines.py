"""Engines: where the workers of a sweep run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faigfast.io.nearest_name import hint
from faigfast.sweeps.driver import Workers
from faigfast.sweeps.local import InProcess, Processes, check_memory, worker_count
from faigfast.sweeps.method_settings import MethodSettings, Resources

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where workers run, and how many.

    Parameters
    ----------
    name : {"local", "ray"}
        Processes of this machine, or actors of Ray.
    workers, address, worker_memory
        As in `sweep`.

    Raises
    ------
    ValueError
        If the name is unknown, or an option belongs to the other engine.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None
    worker_memory: int | None = None

    def __post_init__(self) -> None:
        """Check what needs no cluster."""
        if self.name not in ENGINES:
            guess = hint(str(self.name), ENGINES)
            raise ValueError(
                f"engine is {self.name!r}{guess}; expected one of {', '.join(ENGINES)}"
            )
        worker_count(self.workers, 1)
        if self.name == "local":
            for option in ("address", "worker_memory"):
                if (value := getattr(self, option)) is not None:
                    raise ValueError(
                        f"{option} is {value!r} with the engine 'local'; expected engine='ray'"
                    )
        elif self.workers == 0:
            raise ValueError("workers is 0 with the engine 'ray'; expected at least 1")

    def check(self, settings: Sequence[MethodSettings]) -> None:
        """Refuse settings that ask for more than a worker has, and an engine that is not there.

        Raises
        ------
        ValueError, ImportError
            With the remedy.
        """
        if self.name == "ray":
            from faigfast.sweeps.ray_engine import check_ray

            check_ray(settings, self.worker_memory)
            return
        for one in settings:
            check_memory(one, worker_count(self.workers, one.resources.threads))

    def start(self, folder: Path, resources: Resources) -> Workers:
        """Start the workers for some settings.

        Raises
        ------
        ValueError
            If a cluster does not answer, or has no such resources.
        """
        if self.name == "ray":
            from faigfast.sweeps.ray_engine import Actors

            return Actors(folder, resources, self.workers, self.address, self.worker_memory)
        count = worker_count(self.workers, resources.threads)
        return Processes(folder, count, resources.threads) if count else InProcess(folder)
