"""Training of networks on degraded photographs."""

from faigfast.training.trainer import Schedule, train, train_pair

__all__ = ["Schedule", "train", "train_pair"]
