"""Import of spandrel for tests, with or without torchvision."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "architectures"


def import_spandrel():
    """Give the module spandrel, or skip the test where it or its extra architectures are absent."""
    spec = spec_from_file_location("architectures_packages", SCRIPTS / "packages.py")
    packages = module_from_spec(spec)
    spec.loader.exec_module(packages)
    if why := packages.missing():
        pytest.skip(why)
    packages.import_packages()
    import spandrel

    return spandrel
