"""Plans from YAML files, read by the parser that reads the options of the commands."""

import os
import re
from typing import Any

from faigfast.io.nearest_name import hint
from faigfast.io.regular_file import regular_file, shown

# jsonargparse ≥ 4.50, then older versions.
UNKNOWN = r"Option '(.+?)' is not accepted|[Kk]ey \"?'?([\w.]+?)'?\"? is not"


def read_plan(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a plan; paths in it are relative to the current folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no YAML, or holds an unknown name.
    ImportError
        If jsonargparse is not installed.
    """
    from faigfast.sweeps.plan import NAMES

    regular_file(path, "plan", "a YAML file")
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ImportError:
        raise ImportError("plans in YAML need jsonargparse: pip install 'faigfast[cli]'") from None
    parser = ArgumentParser(exit_on_error=False)
    for name in NAMES:
        parser.add_argument(f"--{name}", type=Any)
    try:
        return parser.parse_path(str(path), defaults=False).as_dict()
    except (ArgumentError, UnicodeDecodeError, TypeError) as problem:
        text = " ".join(str(problem).split())
        unknown = re.search(UNKNOWN, text)
        if unknown:
            name = next(part for part in unknown.groups() if part).partition(".")[0]
            text = f"it holds {name!r}{hint(name, NAMES)}"
        raise ValueError(
            f"plan {shown(path)}: {text}; expected YAML with some of {', '.join(NAMES)}"
        ) from None
