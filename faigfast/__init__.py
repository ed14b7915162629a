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
    "attribute": "faigfast.attribution.one_call",
    "backends": "faigfast.backend.catalogue",
    "derive_baseline": "faigfast.training.derive",
    "load_model": "faigfast.zoo.checkpoints",
    "load_pair": "faigfast.zoo.checkpoints",
    "save_model": "faigfast.zoo.checkpoints",
}

if TYPE_CHECKING:
    from faigfast.attribution.attributor import Attributor
    from faigfast.attribution.one_call import attribute
    from faigfast.backend.catalogue import backends
    from faigfast.filters.dial import Dial
    from faigfast.filters.filter_set import FilterSet
    from faigfast.filters.index import FilterIndex
    from faigfast.result import Attribution
    from faigfast.training.derive import derive_baseline
    from faigfast.zoo.checkpoints import load_model, load_pair, save_model
else:  # mypy would accept every name if it saw `__getattr__`

    def __getattr__(name: str) -> object:
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
    "__version__",
    "attribute",
    "backends",
    "derive_baseline",
    "load_model",
    "load_pair",
    "save_model",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
