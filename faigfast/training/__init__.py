"""Training of networks on degraded photographs."""

from faigfast.training.train import Schedule, train, train_pair

__all__ = ["Schedule", "train", "train_pair"]
