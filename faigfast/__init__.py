"""Filter attribution with integrated gradients (FAIG) for any two networks of one architecture."""

from faigfast._backends import backends
from faigfast.attribution import attribute
from faigfast.filters import FilterIndex, FilterSet
from faigfast.result import Attribution
from faigfast.version import __version__
from faigfast.zoo.checkpoints import load_model, load_pair, save_model

__all__ = [
    "Attribution",
    "FilterIndex",
    "FilterSet",
    "__version__",
    "attribute",
    "backends",
    "load_model",
    "load_pair",
    "save_model",
]
