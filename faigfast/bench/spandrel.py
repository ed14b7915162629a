"""Attention networks of the package spandrel, if it is installed."""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

from torch import nn

# Family → module of the network, class, and its arguments.
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
    module, name, arguments = NETWORKS[family]
    _import_alone("spandrel.util")  # imported by all of the modules
    network: nn.Module = getattr(_import_alone(module), name)(**arguments)
    return network


def _import_alone(name: str) -> Any:
    """Import a module without running its parent packages' own imports.

    Spandrel imports all its architectures, two of which need torchvision.
    """
    words = name.split(".")
    placeholders: list[str] = []
    path = None
    try:
        for count in range(1, len(words)):
            package = ".".join(words[:count])
            if package not in sys.modules:
                spec = PathFinder.find_spec(package, path)
                if spec is None:
                    raise ImportError(f"there is no {package}")
                sys.modules[package] = module_from_spec(spec)
                placeholders.append(package)
            path = sys.modules[package].__path__
        return import_module(name)
    finally:
        for package in placeholders:  # a later import runs the packages in full
            del sys.modules[package]
