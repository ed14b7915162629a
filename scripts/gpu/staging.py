"""The package as the items import it: links to the tree, and the CUDA part that was built here.

Neither pip nor a change of the tree is needed, and an installed faigfast stays as it is.
"""

import json
import os
import shutil
import sysconfig
from pathlib import Path

from .items import BUILT, ITEMS, ROOT

MODULE = f"_C_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
PROGRAM = "conv64"  # the standalone program


def record_of(name: str, built: Path = BUILT) -> Path:
    """File that says which sources a product was built from."""
    return built / f"{name}.built.json"


def is_current(name: str, built: Path = BUILT) -> bool:
    """Whether a product exists and was built, here or elsewhere, from the present sources."""
    record = record_of(name, built)
    known = json.loads(record.read_text())["sources"] if record.exists() else ""
    return (built / name).exists() and known == ITEMS["build"].sources_hash()


def stage(built: Path = BUILT, root: Path = ROOT) -> Path:
    """Lay out `site/faigfast` anew and give the folder for PYTHONPATH."""
    site = built / "site"
    package = site / "faigfast"
    shutil.rmtree(site, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in (root / "faigfast").iterdir():
        own = entry.name.startswith("_C_cuda") or entry.name == "_build_info.json"
        if not own and entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    (package / "kernels").symlink_to(root / "kernels")
    place_module(built, root)
    return site


def place_module(built: Path = BUILT, root: Path = ROOT) -> None:
    """Link the CUDA module into the package where it is built, and record it as setup.py does."""
    package, module = built / "site" / "faigfast", built / MODULE
    info_of_tree = root / "faigfast" / "_build_info.json"
    info = json.loads(info_of_tree.read_text()) if info_of_tree.exists() else {"extension": False}
    there = is_current(MODULE, built)
    reason = "" if there else "scripts.gpu did not build it; see the item build"
    info["cuda"] = {"extension": there, "reason": reason or None}
    (package / "_build_info.json").write_text(json.dumps(info))
    (package / MODULE).unlink(missing_ok=True)
    if there:
        (package / MODULE).symlink_to(module)


def environment(built: Path = BUILT, root: Path = ROOT) -> dict[str, str]:
    """Variables of the items: this package first, then the tree for the scripts."""
    paths = [str(built / "site"), str(root), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
