"""Training of networks on degraded photographs."""

from faigfast.training.derivation import Derivation
from faigfast.training.derive import derive_baseline
from faigfast.training.rankings import Rankings, Snapshot
from faigfast.training.restriction import Restriction
from faigfast.training.tracker import Tracker
from faigfast.training.trainer import Schedule, train, train_pair

__all__ = [
    "Derivation",
    "Rankings",
    "Restriction",
    "Schedule",
    "Snapshot",
    "Tracker",
    "derive_baseline",
    "train",
    "train_pair",
]
