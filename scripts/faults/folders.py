"""Contents of output folders, compared to the bit, without what differs between any two runs."""

import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

MOST_NAMES = 4  # in a sentence

# Entries of manifests that hold times.
TIMES = {"manifest.json": ("time",), "report.json": ("seconds",)}


def contents(folder: Path) -> dict[str, Any]:
    """Give the content of every file and the name of every folder, by relative path."""
    every: dict[str, Any] = {}
    for place, folders, files in os.walk(folder, followlinks=True):
        inner = Path(place).relative_to(folder)
        every |= {str(inner / name): "folder" for name in folders}
        every |= {str(inner / name): _content(Path(place) / name) for name in files}
    return every


def difference(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """Describe how folders differ; "" if they are equal."""
    if missing := expected.keys() - actual.keys():
        return f"{_some(missing)} missing"
    if added := actual.keys() - expected.keys():
        return f"{_some(added)} left"
    differing = [
        name
        for name in sorted(expected, key=lambda name: name.startswith("parts"))
        if expected[name] != actual[name]
    ]
    if not differing:
        return ""
    change = _first_change(expected[differing[0]], actual[differing[0]])
    return f"{_some(differing)} differ: {change}"


def _some(names: Iterable[str]) -> str:
    every = sorted(names, key=lambda name: (name.startswith("parts"), name))
    return ", ".join(every[:MOST_NAMES]) + (", …" if len(every) > MOST_NAMES else "")


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.name == "log.jsonl":
        return [_without(json.loads(line), ["seconds"]) for line in content.splitlines()]
    if path.name == "command.txt":
        return content.replace(b" --overwrite", b"")
    if path.name == "report.html":
        return re.sub(rb"Computed in \d+ s", b"Computed in some time", content)
    try:
        if path.name == "state.part":
            return _state(_tensor_file(content)[1])
        if path.suffix in (".part", ".safetensors"):
            return _tensor_file(content)
        if path.suffix == ".json":
            return _manifest(json.loads(content), TIMES.get(path.name, ()))
    except (ValueError, RuntimeError):  # damaged
        pass
    return content


def _manifest(content: Any, times: tuple[str, ...]) -> str:
    if not isinstance(content, dict):
        return json.dumps(content)
    content = _without(content, times)
    if "command" in content:
        content["command"] = str(content["command"]).replace(" --overwrite", "")
    return json.dumps(content, indent=0)  # NaN is equal as text


def _without(content: dict[str, Any], names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in names}


def _tensor_file(content: bytes) -> tuple[Any, bytes]:
    """Give header and tensors of a safetensors file, whose metadata come in any order."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def _state(content: bytes) -> Any:
    """Give the state of a training without the seconds in its log."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    state["log"] = [_without(entry, ["seconds"]) for entry in state["log"]]
    return _plain(state)


def _plain(value: Any) -> Any:
    """Replace tensors in a state by values that `==` compares to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def _first_change(expected: Any, actual: Any) -> str:
    """Show the first lines that differ, of texts."""
    texts = [
        x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in (expected, actual)
    ]
    for old, new in zip(*(text.splitlines() for text in texts), strict=False):
        if old != new:
            return f"{old[:160]!r} became {new[:160]!r}"
    return "the lengths"
