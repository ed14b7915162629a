"""Hostile checkpoints: for `load_model` and `load_pair`."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from hostile_file import FILE, MARK, Hostile, damaged, misplaced, safetensors
from readers import network, write_checkpoint, write_legacy, write_safetensors
from torch import Tensor, nn

CHUNK = bytes(2**24)
BOMB = 2**29  # bytes that a record of a few MiB grows to
MANY = 200_000
ENTRY = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'  # of a safetensors header


class Runs:
    """Pickles as a call that leaves a mark."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        """Ask the reader for the call."""
        return self.call


def _state(**changed: Any) -> dict[str, Any]:
    return {**network().state_dict(), **changed}


def _first(value: Any) -> dict[str, Any]:
    return {**network().state_dict(), "0.weight": value}


def _claims(count: int) -> Tensor:
    """Give a tensor of many values in one number of storage."""
    return torch.zeros(1).expand(count)


def _saved(make: Callable[[], Any], **options: Any) -> Callable[[Path], object]:
    return lambda folder: torch.save(make(), folder / FILE, **options)


def _many() -> dict[str, Tensor]:
    one = torch.zeros(1)
    return {f"layer.{number}.weight": one for number in range(MANY)}


def _in_itself() -> dict[str, Any]:
    nested: dict[str, Any] = {}
    nested["params"] = nested
    return nested


def _deep() -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"params": nested}
    return nested


def _blocks(number: int, width: int = 4) -> dict[str, Tensor]:
    """Name one block of a known network by a huge number."""
    from faigfast.zoo import SRResNet

    state = SRResNet(width=width, blocks=1, scale=2).state_dict()
    return {key.replace("body.0", f"body.{number}"): value for key, value in state.items()}


def _widths(width: int) -> dict[str, Tensor]:
    """Claim a huge width of a known network, in one number of storage for each tensor."""
    from faigfast.zoo import SRResNet

    with torch.device("meta"):
        shapes = {k: v.shape for k, v in SRResNet(width=width, blocks=1).state_dict().items()}
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


# Content of PyTorch files, by the reader's key.
CONTENTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "expanded to 10¹¹": ("checkpoint", lambda: _first(_claims(10**11).view(10**10, 10, 1, 1))),
    "expanded beside the weights": ("checkpoint", lambda: _state(extra=_claims(10**11))),
    "expanded in another entry": (
        "checkpoint", lambda: {"params": _state(), "optimizer": _claims(10**11)}),
    "expanded in the zoo": ("checkpoint of the zoo", lambda: _widths(20_000)),
    "expanded beyond memory in the zoo": ("checkpoint of the zoo", lambda: _widths(10**6)),
    "block of a huge number": ("checkpoint of the zoo", lambda: _blocks(10**9)),
    "block of a number of 40 digits": ("checkpoint of the zoo", lambda: _blocks(10**40)),
    "block of number 100,000": ("checkpoint of the zoo", lambda: _blocks(10**5)),
    "200,000 tensors": ("checkpoint", _many),
    "200,000 tensors for the zoo": ("checkpoint of the zoo", _many),
    "200,000 tensors for a pair": ("second checkpoint", _many),
    "dict in itself": ("checkpoint", _in_itself),
    "dicts in dicts": ("checkpoint", _deep),
    "no dict": ("checkpoint", lambda: torch.zeros(3)),
    "list": ("checkpoint", lambda: list(network().state_dict().values())),
    "dict of numbers": ("checkpoint", lambda: {"weight": 3}),
    "dict of numbered tensors": ("checkpoint", lambda: {0: torch.zeros(3)}),
    "empty dict": ("checkpoint", dict),
    "name with ../": ("checkpoint", lambda: _state(**{"../../x": torch.zeros(1)})),
    "name with NUL": ("checkpoint", lambda: _state(**{"a\0b": torch.zeros(1)})),
    "name with a line break": ("checkpoint", lambda: _state(**{"a\nb": torch.zeros(1)})),
    "name of 3 MB": ("checkpoint", lambda: _state(**{"a" * 3_000_000: torch.zeros(1)})),
    "empty name": ("checkpoint", lambda: {"": torch.zeros(1)}),
    "names of dots": ("checkpoint", lambda: {"." * 1000: torch.zeros(1)}),
    "prefixes without end": (
        "checkpoint", lambda: {"module." * 100_000 + "weight": torch.zeros(1)}),
    "meta tensor": ("checkpoint", lambda: _first(torch.zeros(8, 3, 3, 3, device="meta"))),
    "sparse tensor": ("checkpoint", lambda: _first(torch.zeros(8, 3, 3, 3).to_sparse())),
    "sparse tensor of a huge shape": (
        "checkpoint", lambda: _first(torch.sparse_coo_tensor(size=(10**6, 10**6, 3, 3)))),
    "nested tensor": (
        "checkpoint", lambda: _first(torch.nested.nested_tensor([torch.zeros(3)]))),
    "quantised tensor": ("checkpoint", lambda: _first(
        torch.quantize_per_tensor(torch.zeros(8, 3, 3, 3), 0.1, 0, torch.quint8))),
    "complex tensor": ("checkpoint", lambda: _first(torch.zeros(8, 3, 3, 3) * 1j)),
    "integer tensor": ("checkpoint", lambda: _first(torch.zeros(8, 3, 3, 3).long())),
    "bool tensor": ("checkpoint", lambda: _first(torch.zeros(8, 3, 3, 3).bool())),
    "transposed shape": ("checkpoint", lambda: _first(torch.zeros(3, 8, 3, 3))),
    "no elements": ("checkpoint", lambda: _first(torch.zeros(0, 3, 3, 3))),
    "huge shape without elements": (
        "checkpoint", lambda: _first(torch.zeros(0).expand(2**40, 2**20, 3, 0))),
    "whole network": ("checkpoint", network),
    "optimizer alone": (
        "checkpoint", lambda: torch.optim.Adam(network().parameters()).state_dict()),
}  # fmt: skip


def _code(folder: Path) -> dict[str, Any]:
    mark = str(folder / MARK)
    return {
        "os.system": Runs(os.system, f"touch {mark}"),
        "eval": Runs(eval, f"open({mark!r}, 'w')"),
        "exec": Runs(exec, f"open({mark!r}, 'w')"),
        "open": Runs(open, mark, "w"),
        "os.mkdir": Runs(os.mkdir, mark),
        "Path.touch": Runs(Path.touch, Path(mark)),
        "torch.save": Runs(torch.save, 3, mark),
        "getattr": Runs(getattr, Runs(__import__, "os"), "getcwd"),
        "a module": Runs(nn.Conv2d, 10**6, 10**6, 9),
    }


def _with_code(kind: str, form: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        content: Any = _state(own=_code(folder)[kind])
        if form == "second entry":
            content = {"params": _state(), "other": _code(folder)[kind]}
        if form == "bare":
            (folder / FILE).write_bytes(pickle.dumps(content, 2))
        else:
            torch.save(content, folder / FILE, _use_new_zipfile_serialization=form != "legacy")

    return write


def _bomb(record: str) -> Callable[[Path], object]:
    """Write a good file with one record replaced by compressed zeros."""

    def write(folder: Path) -> None:
        good = write_checkpoint(folder)
        with (
            zipfile.ZipFile(good) as source,
            zipfile.ZipFile(folder / FILE, "w", compresslevel=1) as target,
        ):
            for info in source.infolist():
                if info.filename.endswith(record):
                    compressed = zipfile.ZipInfo(info.filename)
                    compressed.compress_type = zipfile.ZIP_DEFLATED
                    with target.open(compressed, "w", force_zip64=True) as file:
                        for _ in range(BOMB // len(CHUNK)):
                            file.write(CHUNK)
                else:
                    target.writestr(info, source.read(info))

    return write


def _records(name: str, contents: dict[str, bytes]) -> Callable[[Path], object]:
    """Write a zip archive of one's own."""

    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / FILE, "w") as target:
            for record, content in contents.items():
                target.writestr(f"{name}{record}", content)

    return write


def _many_records(folder: Path) -> None:
    with zipfile.ZipFile(folder / FILE, "w") as target:
        for number in range(60_000):
            target.writestr(f"archive/data/{number}", b"")


def _storage(
    numel: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> Callable[[Path], object]:
    """Write a tensor whose storage, shape or offset the records do not hold."""

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value is self else None

    def write(folder: Path) -> None:
        stream = io.BytesIO()
        pickler = Pickler(stream, 2)
        arguments = pickler, offset, shape, strides, False, OrderedDict()
        pickler.dump({"0.weight": Runs(torch._utils._rebuild_tensor_v2, *arguments)})
        _records("a/", {"data.pkl": stream.getvalue(), "version": b"3\n", "data/0": bytes(16),
                        "byteorder": b"little"})(folder)  # fmt: skip

    return write


def _pickled(*operations: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / FILE).write_bytes(b"\x80\x02" + b"".join(operations))


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "bomb in data.pkl": _bomb("data.pkl"),
    "bomb in a storage": _bomb("data/0"),
    "bomb in the version": _bomb("version"),
    "bomb in the byte order": _bomb("byteorder"),
    "60,000 records": _many_records,
    "no records": _records("a/", {}),
    "no data.pkl": _records("a/", {"version": b"3\n"}),
    "records outside": _records("../../", {"data.pkl": b"", "version": b"3\n"}),
    "absolute records": _records("/", {"data.pkl": b"", "version": b"3\n"}),
    "empty data.pkl": _records("a/", {"data.pkl": b"", "version": b"3\n"}),
    "version of text": _records("a/", {"data.pkl": b"\x80\x02}.", "version": b"many"}),
    "huge version": _records("a/", {"data.pkl": b"\x80\x02}.", "version": b"9" * 30}),
    "storage of more than its record": _storage(10**9, (10**9,), (1,)),
    "storage of 2⁶² values": _storage(2**62, (8, 3, 3, 3), (27, 9, 3, 1)),
    "storage of -1 values": _storage(-1, (8, 3, 3, 3), (27, 9, 3, 1)),
    "shape beyond the storage": _storage(4, (10**6, 10**6), (10**6, 1)),
    "negative stride": _storage(4, (4,), (-1,)),
    "negative shape": _storage(4, (-4,), (1,)),
    "offset beyond the storage": _storage(4, (2,), (1,), 10**12),
    "negative offset": _storage(4, (2,), (1,), -8),
    "pickle of a long text": _pickled(b"\x8d" + struct.pack("<Q", 2**60)),
    "pickle of long bytes": _pickled(b"\x8e" + struct.pack("<Q", 2**40)),
    "pickle of a huge number": _pickled(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "pickle of a million marks": _pickled(b"(" * 1_000_000, b"."),
    "pickle of a huge memo": _pickled(b"}r" + struct.pack("<I", 2**32 - 1), b"."),
    "pickle of doubled tuples": _pickled(b")", b"2\x86" * 40, b"."),
    "pickle that stops": _pickled(b"}q\x00"),
}


def _tensors(shape: list[Any], data: int, start: int = 0, dtype: str = "F32") -> dict[str, Any]:
    return {"0.weight": {"dtype": dtype, "shape": shape, "data_offsets": [start, start + data]}}


HEADERS: dict[str, Callable[[], bytes]] = {
    "header of 2⁶³ bytes": lambda: safetensors(b"{", length=2**63),
    "header of 99 MB that is missing": lambda: safetensors(b"{}", length=99_000_000),
    "header of 99 MB of spaces": lambda: safetensors(b"{" + b" " * 60_000_000 + b"}"),
    "header of nested lists": lambda: safetensors(b'{"a":' + b"[" * 1_000_000),
    "header of nested mappings": lambda: safetensors(b'{"a":' * 1_000_000),
    "header of no mapping": lambda: safetensors(b"{]"),
    "header of equal names": lambda: safetensors(b"{%b,%b}" % (ENTRY, ENTRY), bytes(4)),
    "shape of 2⁴⁰ by 2⁴⁰": lambda: safetensors(_tensors([2**40, 2**40], 4), bytes(4)),
    "shape of 10¹¹": lambda: safetensors(_tensors([10**11], 4 * 10**11), bytes(4)),
    "shape of 2⁶²": lambda: safetensors(_tensors([2**62], 0)),
    "shape of 2⁷⁰": lambda: safetensors(_tensors([2**70], 0)),
    "negative shape": lambda: safetensors(_tensors([-1], 4), bytes(4)),
    "shape of fractions": lambda: safetensors(_tensors([1.5], 4), bytes(4)),
    "huge shape without elements": lambda: safetensors(_tensors([2**40, 0], 0)),
    "offsets outside": lambda: safetensors(_tensors([1], 4, 10**9), bytes(4)),
    "negative offsets": lambda: safetensors(_tensors([1], 4, -4), bytes(4)),
    "offsets of one place": lambda: safetensors({"0.weight": _tensors([1], 4)["0.weight"],
                                         "0.bias": _tensors([1], 4)["0.weight"]}, bytes(4)),
    "unknown type": lambda: safetensors(_tensors([1], 4, dtype="F33"), bytes(4)),
    "type of 4 bits": lambda: safetensors(_tensors([8], 4, dtype="F4"), bytes(4)),
    "no tensors": lambda: safetensors({}),
    "metadata of numbers": lambda: safetensors({"__metadata__": {"a": 1}}),
    "name with ../": lambda: safetensors({"../../x": _tensors([1], 4)["0.weight"]}, bytes(4)),
    "200,000 tensors": lambda: safetensors(
        {str(n): _tensors([1], 4, 4 * n)["0.weight"] for n in range(MANY)}, bytes(4 * MANY)),
    "surrogates in names": lambda: safetensors(
        b"{%b}" % ENTRY.replace(b"a", b"\\ud800", 1), bytes(4)),
}  # fmt: skip


def hostile_files(random: Random) -> list[Hostile]:
    """Give all hostile checkpoints."""
    files = damaged("checkpoint", write_checkpoint, random, 12, 24, 6)
    files += damaged("second checkpoint", write_checkpoint, random, 3, 3, 0)
    for name, good in (("safetensors", write_safetensors), ("old PyTorch", write_legacy)):
        for case in damaged("checkpoint", good, random, 6, 0, 0):
            files.append(Hostile(f"{name} {case.name}", case.reader, case.write, readable=True))
    files += misplaced("checkpoint")
    readable = ("expanded in another entry",)
    for name, (reader, make) in CONTENTS.items():
        write = _saved(make)
        files.append(Hostile(f"{reader}: {name}", reader, write, readable=name in readable))
    for kind in _code(Path()):
        for form in ("zip", "legacy", "bare", "second entry"):
            reader = "second checkpoint" if form == "zip" else "checkpoint"
            name = f"{reader}: {form} pickle that calls {kind}"
            files.append(Hostile(name, reader, _with_code(kind, form)))
    files += [Hostile(f"archive: {n}", "checkpoint", write) for n, write in ARCHIVES.items()]
    for name, make in HEADERS.items():
        files.append(Hostile(f"safetensors: {name}", "checkpoint", _bytes(make)))
    return files


def _bytes(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / FILE).write_bytes(make())
