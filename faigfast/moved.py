"""Old names of modules that moved: they can be imported for one more release, with a warning."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# What is inside a moved package moved with it, unless it has a line of its own.
MOVED = {
    "batch": "integration.batch",
    "devices": "backend.gpu.devices",
    "findings": "analysis",
    "findings.figures": "analysis.report.figures",
    "findings.frames": "analysis.data_frames",
    "findings.lessons": "analysis.retraining_runs",
    "findings.report": "analysis.report.page",
    "findings.rivals": "analysis.baselines",
    "findings.sections": "analysis.report.sections",
    "findings.store": "analysis.finished_parts",
    "findings.sweep": "analysis.measure",
    "findings.tables": "analysis.report.tables",
    "findings.trials": "analysis.prediction_trials",
    "findings.units": "analysis.swap_units",
    "findings.whole": "analysis.report.full_report",
    "fingerprints": "models.fingerprint",
    "networks": "models.state",
    "objective": "integration.objective",
    "path": "integration.path",
    "precision": "backend.precision",
    "quadrature": "integration.quadrature",
    "refinement": "integration.refinement",
    "selection": "filters.selection",
}


def new_name(name: str) -> str | None:
    """Name under which a module of faigfast is found now; None where it did not move."""
    package, _, inner = name.partition(".")
    if package != "faigfast":
        return None
    if inner in MOVED:
        return f"faigfast.{MOVED[inner]}"
    parent, _, last = inner.rpartition(".")
    return f"faigfast.{MOVED[parent]}.{last}" if parent in MOVED else None


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        moved = new_name(name)
        return None if moved is None else ModuleSpec(name, _Alias(moved))


class _Alias(Loader):
    def __init__(self, moved: str) -> None:
        self.moved = moved

    def exec_module(self, module: ModuleType) -> None:
        text = f"{module.__name__} is {self.moved} now; the old name goes with the next release"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        moved = import_module(self.moved)
        if hasattr(moved, "__path__"):
            # A package keeps a module of its own: imports below it would set attributes of `moved`.
            module.__path__ = []
            module.__getattr__ = partial(_part, moved)  # type: ignore[method-assign]
        else:
            sys.modules[module.__name__] = moved  # the import system gives this one


def _part(package: ModuleType, name: str) -> object:
    """Give an attribute of a moved package, or a module inside it that is not imported yet."""
    if not hasattr(package, name) and not name.startswith("_"):
        with suppress(ModuleNotFoundError):
            import_module(f"{package.__name__}.{name}")
    return getattr(package, name)


def install() -> None:
    """Let old names be imported."""
    sys.meta_path.insert(0, _Finder())  # before a moved package finds its modules itself
