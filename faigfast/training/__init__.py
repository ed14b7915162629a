"""Training of networks on degraded photographs."""

from faigfast.training.derivation import Derivation
from faigfast.training.derive import derive_baseline
from faigfast.training.trainer import Schedule, train, train_pair

__all__ = ["Derivation", "Schedule", "derive_baseline", "train", "train_pair"]
