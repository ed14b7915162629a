"""Filter attribution with integrated gradients (FAIG) for any two networks of one architecture.

Public names are imported on first use: torch takes seconds, and `faigfast --help` need not wait.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from faigfast import moved
from faigfast.version import __version__

moved.install()

# A new public name goes into this mapping, the imports below and `__all__`. No module of this
# folder may have the same name: Python would replace the public object by the module.
_MODULE_OF = {
    "Attribution": "faigfast.result",
    "Attributor": "faigfast.attribution.attributor",
    "Dial": "faigfast.filters.dial",
    "FilterIndex": "faigfast.filters.index",
    "FilterSet": "faigfast.filters.filter_set",
    "Tracker": "faigfast.training.tracker",
    "ablate": "faigfast.analysis.ablation",
    "attribute": "faigfast.attribution.one_call",
    "backends": "faigfast.backend.catalogue",
    "derive_baseline": "faigfast.training.derive",
    "distribution": "faigfast.analysis.public_ranked",
    "importance": "faigfast.analysis.public_ranked",
    "load_model": "faigfast.zoo.checkpoints",
    "load_pair": "faigfast.zoo.checkpoints",
    "locations": "faigfast.analysis.public_measured",
    "mask": "faigfast.analysis.public_measured",
    "modulate": "faigfast.analysis.public_measured",
    "open_sweep": "faigfast.sweeps.opened",
    "overlap": "faigfast.analysis.public_ranked",
    "predict": "faigfast.analysis.public_learned",
    "retrain": "faigfast.analysis.public_learned",
    "save_model": "faigfast.zoo.checkpoints",
    "shipped_pair": "faigfast.zoo.pairs",
    "sweep": "faigfast.sweeps.run",
}

# Rooms with public names of their own, and the alias of one of them.
_ROOMS = ("analysis", "data", "findings", "training")

if TYPE_CHECKING:
    from faigfast.analysis.ablation import ablate
    from faigfast.analysis.public_learned import predict, retrain
    from faigfast.analysis.public_measured import locations, mask, modulate
    from faigfast.analysis.public_ranked import distribution, importance, overlap
    from faigfast.attribution.attributor import Attributor
    from faigfast.attribution.one_call import attribute
    from faigfast.backend.catalogue import backends
    from faigfast.filters.dial import Dial
    from faigfast.filters.filter_set import FilterSet
    from faigfast.filters.index import FilterIndex
    from faigfast.result import Attribution
    from faigfast.sweeps.opened import open_sweep
    from faigfast.sweeps.run import sweep
    from faigfast.training.derive import derive_baseline
    from faigfast.training.tracker import Tracker
    from faigfast.zoo.checkpoints import load_model, load_pair, save_model
    from faigfast.zoo.pairs import shipped_pair
else:  # mypy would accept every name if it saw `__getattr__`

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return import_module(f"faigfast.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


__all__ = [
    "Attribution",
    "Attributor",
    "Dial",
    "FilterIndex",
    "FilterSet",
    "Tracker",
    "__version__",
    "ablate",
    "attribute",
    "backends",
    "derive_baseline",
    "distribution",
    "importance",
    "load_model",
    "load_pair",
    "locations",
    "mask",
    "modulate",
    "open_sweep",
    "overlap",
    "predict",
    "retrain",
    "save_model",
    "shipped_pair",
    "sweep",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS} - {"findings"})
