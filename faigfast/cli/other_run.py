"""A folder that holds another run: which option differs, and its two values.

Identities of runs hold hashes of weights and photographs. The options that these come from are
kept in a file beside the parts of a run, which decides nothing: it only words the refusal.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from faigfast.io.atomic import write_json

RECORD = "options.json"
PARTS = "parts"
STATE_SUFFIX = ".state"  # of the folder of a baseline's training, beside the output
REFUSAL = re.compile(
    r"(?P<folder>.+) holds the results of another run: (?P<place>.+?) was (?P<old>.+) and is "
    r"(?P<new>.+); choose another folder, or add --overwrite$",
    re.DOTALL,
)
NETWORKS = ("baseline", "target", "pair", "key", "baseline_key", "target_key", "dtype", "into",
            "into_kwargs", "fuse", "noise_level")  # fmt: skip
RECIPES = ("degrade", "lq")
CROPS = ("gt", *RECIPES, "scale", "downsampling", "seed", "lq_name", "recursive", "alpha", "crop",
         "crop_to", "attributed", "measured", "pair")  # fmt: skip
# Entry of an identity: the options that it comes from.
CAUSES = {
    **dict.fromkeys(("baseline", "target"), NETWORKS),
    **dict.fromkeys(("attributed", "measured", "images"), CROPS),
    **dict.fromkeys(("degradations", "order"), RECIPES),
    **dict.fromkeys(("photographs", "held_out"), ("folder", "train", *CROPS)),
    "learning_rate": ("rate", "rates"),
    "recipes": ("degrade",),
    "network": ("network", "width", "depth"),
}
ARGUMENTS = ("baseline", "target")  # without dashes
NOT_KEPT = ("config", "output", "overwrite", "quiet", "debug")


def remember(folder: Path, options: Any, overwrite: bool) -> None:
    """Keep the options of a run beside its parts, unless the folder holds parts already."""
    if overwrite or not any(folder.glob("*.part")):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, kept_options(options))


def forget(folder: Path) -> None:
    """Remove the options of a run that ended."""
    (folder / RECORD).unlink(missing_ok=True)


def forget_unused(options: Any) -> None:
    """Remove the kept options of a command that ended without parts, and their empty folder."""
    output = dict(options).get("output")
    if not output:
        return
    for folder in (Path(output, PARTS), Path(output, "baseline"), Path(output + STATE_SUFFIX)):
        if (folder / RECORD).exists() and not any(folder.glob("*.part")):
            forget(folder)
            with suppress(OSError):  # it holds other files
                folder.rmdir()


def kept_options(options: Any) -> dict[str, Any]:
    """Give the options that results may depend on, in JSON types."""
    given = dict(options)
    return {
        name: value
        for name, value in given.items()
        if name not in NOT_KEPT and _is_json(value) and not name.startswith("_")
    }


def name_options(message: str, options: Any) -> str:
    """Reword the refusal of a folder by the options that differ; other messages stay.

    Parameters
    ----------
    message : str
        Of an error.
    options : Namespace or None
        Of the command.
    """
    match = REFUSAL.match(message)
    if match is None or options is None:
        return message
    now = kept_options(options)
    before = _record(Path(match["folder"]))
    place, rest = match["place"].partition(".")[::2]
    causes = [name for name in CAUSES.get(place, (place,)) if name in now]
    differing = [name for name in causes if name in before and before[name] != now[name]]
    if differing:
        change = ", ".join(
            f"{_option(name)} was {value_text(before[name])}, is {value_text(now[name])}"
            for name in differing
        )
    else:
        change = _by_identity(place, rest, match["old"], match["new"], causes)
    start, end = message[: match.start("place")], message[match.end("new") :]
    return f"{start}{change}{end}"


def value_text(value: Any) -> str:
    """Write a value as on the command line.

    Examples
    --------
    >>> value_text(64), value_text(["blur=2", "noise=0.1"]), value_text(None)
    ('64', 'blur=2 noise=0.1', 'not given')
    """
    if value is None or value is False or value == []:
        return "not given"
    if value is True:
        return "given"
    if isinstance(value, dict):
        return json.dumps(value)
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(f"{v:g}" if isinstance(v, float) else shlex.quote(str(v)) for v in values)


def _by_identity(place: str, rest: str, old: str, new: str, causes: list[str]) -> str:
    """Word a difference of identities where no kept option explains it."""
    values = [_literal(text) for text in (old, new)]
    if place in ARGUMENTS:
        return f"the weights of the {place} have changed"
    if place in ("attributed", "measured"):
        return "the photographs, or how they are read, have changed"
    if place in ("images", "photographs"):
        if not rest:
            return "the photographs have changed"
        name = rest.removesuffix(".gt").rpartition(".lq.")[0] or rest.removesuffix(".gt")
        if values[0] is None:
            return f"image {name!r} is new"
        return f"image {name!r} is {'missing' if values[1] is None else 'another one'}"
    shown = _option(causes[0]) if len(causes) == 1 else ".".join(filter(None, (place, rest)))
    return f"{shown} was {value_text(values[0])}, is {value_text(values[1])}"


def _option(name: str) -> str:
    return name if name in ARGUMENTS else f"--{name.replace('_', '-')}"


def _record(folder: Path) -> Mapping[str, Any]:
    """Read the options of the run in a folder; empty if they are not kept."""
    for file in _records(folder):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            options = content.get("options") if file.name != RECORD else content
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(options, dict):
            return options
    return {}


def _records(folder: Path) -> Iterator[Path]:
    """Places of the options: beside the parts, in the manifest, or with a training's study."""
    yield folder / RECORD
    yield folder / "manifest.json"
    yield folder / PARTS / RECORD
    yield folder.parent / PARTS / RECORD
    yield folder.parent / "baseline" / RECORD  # of `faigfast train`: one for both trainings


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
