"""Hostile files for `Attribution.load`: damaged, or with a right digest and wrong content."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from hostile_file import FILE, Hostile, damaged, misplaced, safetensors
from readers import attribution, write_attribution
from torch import Tensor

READER = "attribution"


def _with_number(key: str, number: float) -> dict[str, Callable[[Tensor], Tensor]]:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value.view(-1)[0] = number
        return value

    return {key: change}


# Arrays that `save` does not write, by the change to the good one; None removes it.
ARRAYS: dict[str, dict[str, Callable[[Tensor], Tensor] | None]] = {
    "scores of NaN": _with_number("scores.0", math.nan),
    "scores of inf": _with_number("scores.1", math.inf),
    "negative scores": _with_number("scores.0", -1.0),
    "integer scores": {"scores.0": Tensor.long},
    "bool scores": {"scores.0": Tensor.bool},
    "complex scores": {"scores.0": lambda v: v.to(torch.complex64)},
    "scores of two types": {"scores.0": Tensor.double},
    "scores of float8": {"scores.0": lambda v: v.to(torch.float8_e4m3fn)},
    "scores of one image": {"scores.0": lambda v: v[:1], "scores.1": lambda v: v[:1]},
    "scores of fewer filters": {"scores.0": lambda v: v[:, :-1]},
    "scores in a vector": {"scores.0": Tensor.flatten},
    "scalar scores": {"scores.0": Tensor.sum},
    "no scores": {"scores.0": None},
    "negative completeness": _with_number("completeness", -1.0),
    "integer completeness": {"completeness": Tensor.long},
    "vector of completeness": {"completeness": Tensor.flatten},
    "no completeness": {"completeness": None},
    "losses of NaN": _with_number("losses", math.nan),
    "losses of inf": _with_number("losses", math.inf),
    "integer losses": {"losses": Tensor.long},
    "vector of losses": {"losses": Tensor.flatten},
    "scalar losses": {"losses": Tensor.sum},
    "losses of no images": {"losses": lambda v: v[:, :0]},
    "no losses": {"losses": None},
    "negative error": _with_number("error", -1.0),
    "integer error": {"error": lambda v: v.nan_to_num().long()},
    "no error": {"error": None},
    "negative points": _with_number("points", -3),
    "no points at all": {"points": torch.zeros_like},
    "fractional points": {"points": lambda v: v + 0.5},
    "no points": {"points": None},
    "numbers as scored": {"scored": Tensor.long},
    "nothing scored": {"scored": torch.zeros_like},
    "fewer scored": {"scored": lambda v: v[:-1]},
    "no scored": {"scored": None},
}
# Metadata that `save` does not write.
METADATA: dict[str, dict[str, Any]] = {
    "numbers as degradations": {"degradations": [1, 2]},
    "null as degradations": {"degradations": None},
    "text as degradations": {"degradations": "ab"},
    "lists as degradations": {"degradations": [["a"], ["b"]]},
    "equal degradations": {"degradations": ["a", "a"]},
    "more degradations": {"degradations": ["a", "b", "c"]},
    "no degradations": {"degradations": []},
    "a million degradations": {"degradations": [str(n) for n in range(10**6)]},
    "numbers as layers": {"layers": [0]},
    "text as layers": {"layers": "w"},
    "no layers": {"layers": []},
    "equal layers": {"layers": ["weight", "weight"], "shapes": [[2, 3, 3, 3]] * 2},
    "more layers": {"layers": ["weight", "b"]},
    "fractional shapes": {"shapes": [[4.0, 3, 3, 3]]},
    "negative shapes": {"shapes": [[-4, -3, 3, 3]]},
    "huge shapes": {"shapes": [[2**62, 2**62, 3, 3]]},
    "bool shapes": {"shapes": [[4, 3, True, True]]},
    "texts as shapes": {"shapes": [["4", "3", "3", "3"]]},
    "shapes of two axes": {"shapes": [[4, 3]]},
    "null as shapes": {"shapes": None},
    "numbers as notes": {"notes": [3]},
    "text as notes": {"notes": "abc"},
    "null as notes": {"notes": None},
    "another format": {"format": "faigfast attribution 99"},
    "a list as format": {"format": [1]},
    "null as setting": {"setting": None},
    "text as setting": {"setting": "midpoint"},
    "an empty setting": {"setting": {}},
}
SETTINGS: dict[str, Any] = {
    "rule": [3, "simpson", None, ["left"]],
    "steps": ["2", -2, 0, 2.5, True],
    "tol": ["x", -1.0, True, math.nan],
    "emulate": ["no", 1, None],
    "objective": [None, 3],
    "backend": [3, "quantum", None],
    "precision": [3, "fp3", None],
    "per_image": ["yes", 0, False],
    "baseline": [3, None],
    "target": [3, None],
    "method": [3, "magic"],
    "contrasted": ["no", None],
    "seed": ["x", 1.5],
    "more": [1],
}
# Names that an attribution may have: read as they are, or refused.
NAMES = ["../../x", "", "a\0b", "a\nb", "=1+1", "\u202eabc", "$_<%'\"", "ä" * 5000]


def _rewritten(
    change: Callable[[dict[str, Tensor], dict[str, Any]], Any],
) -> Callable[[Path], object]:
    """Save changed content with the digest that goes with it."""

    def write(folder: Path) -> None:
        from faigfast.io.tensor_file import save_tensors

        tensors, metadata = attribution().to_tensors()
        change(tensors, metadata)
        save_tensors(folder / FILE, tensors, metadata)

    return write


def _arrays(changes: dict[str, Callable[[Tensor], Tensor] | None]) -> Callable[[Path], object]:
    def change(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        for key, make in changes.items():
            if make is None:
                del tensors[key]
            else:
                tensors[key] = make(tensors.get(key, torch.zeros(())))

    return _rewritten(change)


def _metadata(**changed: Any) -> Callable[[Path], object]:
    return _rewritten(lambda tensors, metadata: metadata.update(changed))


def _setting(key: str, value: Any) -> Callable[[Path], object]:
    return _rewritten(lambda tensors, metadata: metadata["setting"].update({key: value}))


def _raw(**entries: str | None) -> Callable[[Path], object]:
    """Save the good content under texts of one's own in place of JSON; None removes an entry."""

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        tensors, metadata = attribution().to_tensors()
        texts: dict[str, Any] = {key: json.dumps(value) for key, value in metadata.items()}
        texts |= entries
        save_file(tensors, folder / FILE, {k: v for k, v in texts.items() if v is not None})

    return write


RAW: dict[str, tuple[Callable[[Path], object], bool]] = {
    "no digest": (_raw(), True),
    "a wrong digest": (_raw(sha256='"00"'), False),
    "a digest of null": (_raw(sha256="null"), False),
    "no metadata": (_raw(**dict.fromkeys(
        ("format", "degradations", "layers", "shapes", "setting", "notes"))), False),
    "no JSON": (_raw(setting="{"), False),
    "JSON of nested lists": (_raw(notes="[" * 100_000 + "]" * 100_000), False),
    "JSON of a huge number": (_raw(degradations="9" * 10_000), False),
    "a pickle": (lambda folder: (folder / FILE).write_bytes(pickle.dumps({"a": 1})), False),
    "a PyTorch file": (lambda folder: torch.save({"a": torch.zeros(3)}, folder / FILE), False),
    "another safetensors file": (
        lambda folder: (folder / FILE).write_bytes(safetensors({})), False),
    "a huge shape": (lambda folder: (folder / FILE).write_bytes(safetensors(
        {"scores.0": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}})), False),
    "a header of 2⁶³ bytes": (
        lambda folder: (folder / FILE).write_bytes(safetensors(b"{", length=2**63)), False),
}  # fmt: skip


def hostile_files(random: Random) -> list[Hostile]:
    """Give all hostile attributions."""
    files = damaged(READER, write_attribution, random, 10, 20, 5) + misplaced(READER)
    changed = {name: _arrays(changes) for name, changes in ARRAYS.items()}
    changed |= {name: _metadata(**values) for name, values in METADATA.items()}
    changed |= {
        f"setting {key}={value!r}": _setting(key, value)
        for key, values in SETTINGS.items()
        for value in values
    }
    files += [Hostile(f"{READER}: {name}", READER, write) for name, write in changed.items()]
    for name in NAMES:
        write = _metadata(degradations=[name, "noise"])
        files.append(Hostile(f"{READER}: named {name[:9]!r}", READER, write, readable=True))
    for name, (write, readable) in RAW.items():
        files.append(Hostile(f"{READER}: {name}", READER, write, readable))
    return files
