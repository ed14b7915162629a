"""Import of spandrel without torchvision, of which networks that restore images need nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

NAMES = ("spandrel", "spandrel_extra_arches")
STAND_IN = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def missing() -> str:
    """Name the packages that are not installed, and how to get them; "" if all are."""
    absent = [name for name in (*NAMES, "einops") if find_spec(name) is None]
    if not absent:
        return ""
    words = " ".join(name.replace("_", "-") for name in absent)
    return f"{', '.join(absent)} not installed: pip install --no-deps {words}"


def import_packages() -> None:
    """Import spandrel and spandrel-extra-arches."""
    with _torchvision():
        import spandrel  # noqa: F401
        import spandrel_extra_arches  # noqa: F401


@contextmanager
def _torchvision() -> Iterator[None]:
    """Let imports of torchvision inside succeed where it is absent or not built for this torch.

    Spandrel imports all architectures at once; its inpainting LaMa, and the front end of
    RestoreFormer, take functions from torchvision.
    """
    if all(name in sys.modules for name in NAMES) or _is_usable():
        yield
        return
    modules = {name: ModuleType(name) for name in STAND_IN}
    functions = {"InterpolationMode": type("InterpolationMode", (), {"BILINEAR": "bilinear"})}
    vars(modules[STAND_IN[-1]]).update(functions | {"rotate": None, "normalize": None})
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in STAND_IN:
            sys.modules.pop(name, None)


def _is_usable() -> bool:
    try:
        import torchvision.transforms.functional  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True
