"""A callback of PyTorch Lightning for a `Tracker`; imports Lightning only when it is made."""

import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from faigfast.training.restriction import Restriction, Trained
    from faigfast.training.tracker import Tracker

NetworkOf = str | Callable[[Any], nn.Module] | None
PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(
    tracker: "Tracker", network: NetworkOf, train: "Trained | None", degradation: str | None
) -> Any:
    """Make the callback; `Tracker.lightning` describes it.

    Raises
    ------
    ImportError
        If Lightning is not installed.
    """
    base: Any = _package().Callback
    network_of: Any = attrgetter(network) if isinstance(network, str) else network

    class TrackerCallback(base):
        """Calls the tracker after every batch."""

        restriction: "Restriction | None" = None

        def _network(self, module: Any) -> nn.Module:
            return module if network_of is None else network_of(module)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if train is not None:
                self.restriction = tracker.restrict(
                    self._network(pl_module), trainer.optimizers, degradation, train
                )

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step:  # 0 while the first gradients are accumulated
                tracker.step(self._network(pl_module), trainer.global_step)

        def _remove(self) -> None:
            if self.restriction is not None:
                self.restriction.remove()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self._remove()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self._remove()

    return TrackerCallback()


def _package() -> Any:
    """Import Lightning: the package that is in use, where both are installed."""
    for name in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        try:
            return import_module(name)
        except ModuleNotFoundError as problem:
            if problem.name not in (name, name.partition(".")[0]):
                raise
    raise ImportError("the callback needs PyTorch Lightning: pip install lightning")
