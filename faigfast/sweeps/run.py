"""sweep(): every unit of a plan that is not finished, on this machine or on a cluster."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faigfast.io.atomic import TEMPORARY, write_json, write_text
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.sweeps.catalogue import Catalogue
from faigfast.sweeps.driver import RETRIES, Driver
from faigfast.sweeps.engines import Engine
from faigfast.sweeps.failures import MOST, Failures
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.ledger import Ledger, forget_unknown
from faigfast.sweeps.opened import Sweep
from faigfast.sweeps.plan import PathLike, Plan
from faigfast.sweeps.selection import PLAN
from faigfast.sweeps.status import Heartbeat, identity_of_driver
from faigfast.sweeps.units import Grid, Unit

HOLDER = "driver.json"
TIMEOUT = 3600.0  # seconds


def sweep(
    plan: Plan | Mapping[str, Any] | PathLike,
    output: PathLike,
    engine: str = "local",
    *,
    workers: int | None = None,
    address: str | None = None,
    worker_memory: int | None = None,
    unit_timeout: float | None = TIMEOUT,
    retries: int = RETRIES,
    max_failures: int = MOST,
    verify: bool = False,
    progress: bool = False,
) -> Sweep:
    """Attribute every combination of pairs, degradations, settings and images of a plan.

    Finished units are kept in `output`. The same call goes on after any end, and a plan with more
    images, levels, settings or pairs computes the new units alone.

    Parameters
    ----------
    plan : Plan, mapping or path
        The grid, as in `faigfast.sweeps.plan.Plan`; a path is a YAML file.
    output : path-like
        Folder of the sweep.
    engine : {"local", "ray"}
        Processes of this machine, or actors of Ray.
    workers : int, optional
        Number of workers; by default as many as the processors allow. 0 computes in this process,
        without protection against crashes.
    address : str, optional
        Of a running cluster of Ray, such as "auto" or "ray://head:10001"; None starts one here.
    worker_memory : int, optional
        Bytes that Ray reserves for each worker.
    unit_timeout : float, optional
        Seconds after which a worker counts as hung and is replaced; None: never.
    retries : int
        Times that a unit is tried again after a crash, or an error that may pass.
    max_failures : int
        Images that may fail before the sweep stops.
    verify : bool
        Read every finished file again and compare its digest, not its size alone.
    progress : bool
        Show a bar with the rate and the time left over all workers.

    Returns
    -------
    Sweep
        The results, as `open_sweep` gives them.

    Raises
    ------
    TypeError, ValueError
        If the plan or an argument is wrong, another process works on the output, it cannot be
        written, or too many images fail.
    FileNotFoundError
        If a file of the plan does not exist.
    ImportError
        If Ray is asked for and absent or too old.
    KeyboardInterrupt
        After Ctrl-C; its text says what is kept.

    Notes
    -----
    Scores are those of `faigfast.attribute` for the images of a unit, which `Sweep.batch` gives.
    """
    chosen = Engine(engine, workers, address, worker_memory)
    _check(unit_timeout, retries, max_failures)
    plan = Plan.of(plan)
    chosen.check(plan.chosen_settings())
    folder = Path(output)
    with _alone(folder):
        catalogue, cache = Catalogue(folder), FileCache(folder)
        forget_unknown(folder, catalogue)
        grid = Grid(plan, catalogue, cache)
        catalogue.save()
        cache.save()
        write_text(folder / PLAN, json.dumps(grid.description()) + "\n")
        ledger, failures = Ledger(folder), Failures(folder, max_failures)
        failures.clear(folder)
        try:
            for name, reason in grid.listed.refused.items():
                failures.refuse(name, reason)
            total = done = 0
            for unit in _leaves(grid, ledger):
                total += 1
                done += ledger.check(unit, verify) or ledger.adopt(unit)
            heartbeat = Heartbeat(folder, total, done, progress)
            try:
                driver = Driver(grid, ledger, failures, heartbeat, unit_timeout, retries)
                if done < total:
                    _compute(driver, chosen)
            finally:
                heartbeat.close()
        except KeyboardInterrupt as stop:
            kept = counted(len(ledger), "unit")
            stop.args = (f"kept: {kept} in {folder}; the same command goes on from there",)
            raise
        finally:
            ledger.close()
    return Sweep(folder, grid)


def _compute(driver: Driver, engine: Engine) -> None:
    """Compute the units that are left, setting by setting where they need other workers."""
    grid, ledger = driver.grid, driver.ledger
    for resources in sorted({one.resources for one in grid.settings.values()}):
        numbers = {n for n, one in grid.settings.items() if one.resources == resources}
        left = (
            unit
            for unit in _leaves(grid, ledger)
            if unit.setting in numbers and not ledger.is_done(unit)
        )
        workers = engine.start(ledger.folder, resources)
        driver.heartbeat.workers = workers.workers
        try:
            driver.run(left, workers)
        finally:
            workers.close()


def _leaves(grid: Grid, ledger: Ledger) -> Iterator[Unit]:
    for unit in grid.units():
        yield from grid.leaves(unit, ledger.is_split)


def _check(unit_timeout: float | None, retries: int, max_failures: int) -> None:
    if unit_timeout is not None and not unit_timeout > 0:
        raise ValueError(f"unit_timeout is {unit_timeout!r}; expected a positive number of seconds")
    for name, value in (("retries", retries), ("max_failures", max_failures)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}; expected an integer from 0 up")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder and lock it; say who holds it where another process does.

    Raises
    ------
    ValueError
        If the folder is in use, cannot be made, or holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}
    except OSError as problem:
        raise ValueError(
            f"output {folder} cannot be made or read: {problem.strerror}; expected a folder"
        ) from problem
    if names and PLAN not in names and HOLDER not in names:
        raise ValueError(
            f"output {folder} holds {min(names)!r} and no sweep; expected a new folder, or the one "
            "of a sweep"
        )
    locked = False
    try:
        with alone_in(folder):
            locked = True
            try:
                write_json(folder / HOLDER, identity_of_driver())
                yield
            finally:
                if not (folder / PLAN).exists():  # a refused plan leaves nothing
                    with suppress(OSError):
                        (folder / HOLDER).unlink(missing_ok=True)
                        folder.rmdir()
    except ValueError:
        if locked:
            raise
        raise ValueError(_holder_text(folder)) from None


def _holder_text(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        who = f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"output {folder} is in use: {who} works on it; wait for it, or look with "
        f"`faigfast sweep status {folder}`"
    )
