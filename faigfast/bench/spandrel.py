"""Attention networks that the package spandrel has, where it is installed."""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from torch import nn

# Of a family: the module with the network, its class, and the settings.
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dat": (
        "spandrel.architectures.DAT.__arch.DAT",
        "DAT",
        dict(
            embed_dim=60, depth=[18], num_heads=[6], split_size=[8, 32], expansion_factor=2.0,
            resi_connection="3conv", upsampler="pixelshuffledirect", upscale=2,
        ),
    ),
    "hat": (
        "spandrel.architectures.HAT.__arch.HAT",
        "HAT",
        dict(
            embed_dim=144, depths=(6, 6), num_heads=(6, 6), window_size=16, compress_ratio=24,
            squeeze_factor=24, mlp_ratio=2.0, upscale=2,
        ),
    ),
    "restormer": (
        "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch",
        "Restormer",
        {},
    ),
}  # fmt: skip


def missing(family: str) -> str:
    """Say which packages a family of `NETWORKS` needs and how to get them; empty if all is here."""
    package = NETWORKS[family][0].split(".")[0]
    needed = dict.fromkeys((package, "spandrel", "einops"))
    absent = [name for name in needed if find_spec(name) is None]
    if not absent:
        return ""
    names = " ".join(name.replace("_", "-") for name in absent)
    return (
        f"{family} needs {' and '.join(absent)}, which faigfast does not depend on: "
        f"pip install --no-deps {names}"
    )


def network(family: str) -> nn.Module:
    """Make the network of a family of `NETWORKS`, with random weights.

    Raises
    ------
    ValueError
        If a package is missing.
    """
    why = missing(family)
    if why:
        raise ValueError(why)
    module, name, settings = NETWORKS[family]
    _alone("spandrel.util")  # which all of them import
    made: nn.Module = getattr(_alone(module), name)(**settings)
    return made


def _alone(name: str) -> Any:
    """Import a module without what the packages around it import.

    Spandrel imports all its architectures, two of which need torchvision.
    """
    words = name.split(".")
    empty: list[str] = []
    path = None
    try:
        for count in range(1, len(words)):
            package = ".".join(words[:count])
            if package not in sys.modules:
                spec = PathFinder.find_spec(package, path)
                if spec is None:
                    raise ImportError(f"there is no {package}")
                sys.modules[package] = module_from_spec(spec)
                empty.append(package)
            path = sys.modules[package].__path__
        return import_module(name)
    finally:
        for package in empty:  # whoever imports it next gets all of it
            del sys.modules[package]
