"""Hostile files of filter indices: for `FilterSet.load`."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from hostile_file import FILE, Hostile, misplaced

GOOD = "5\n0\n11\n3\n"
# Text of a file, and whether it may be read as 5, 0, 11, 3.
TEXTS: dict[str, tuple[str | bytes, bool]] = {
    "negative": ("5\n-1\n", False),
    "minus zero": ("5\n-0\n", False),
    "with a sign": ("+5\n0\n", False),
    "fraction": ("5\n0.5\n", False),
    "whole fraction": ("5.0\n0.0\n", False),
    "exponent": ("1e3\n", False),
    "hexadecimal": ("0x10\n", False),
    "underscore": ("1_000\n", False),
    "huge": (f"5\n{10**30}\n", False),
    "of 2⁶³": (f"{2**63}\n", False),
    "of a million digits": ("9" * 10**6, False),
    "twice": ("5\n0\n5\n", False),
    "twice with zeros": ("5\n005\n", False),
    "NaN": ("nan\n", False),
    "words": ("five\n", False),
    "two on a line": ("5 0\n", False),
    "commas": ("5,0,11\n", False),
    "Arabic digits": ("٥\n", False),
    "superscript": ("²\n", False),
    "full-width digits": ("５\n", False),
    "no index": ("# nothing\n\n", False),
    "byte order mark": (b"\xef\xbb\xbf5\n0\n11\n3\n", True),
    "UTF-16": (GOOD.encode("utf-16"), False),
    "Latin-1": (b"# \xe4\n5\n0\n", False),
    "NUL": (b"5\n0\0\n", False),
    "NUL alone": (bytes(1000), False),
    "carriage returns": ("5\r\n0\r\n11\r\n3\r\n", True),
    "form feeds": ("5\f0\f11\f3\f", True),
    "spaces": (" 5\t\n0 \n\n11\n3", True),
    "comments": ("# a\n5\n0\n# b\n11\n3\n", True),
    "header with a smaller total": (f"# faigfast filters=11\n{GOOD}", False),
    "header with a total below": (f"{GOOD}# faigfast filters=4\n", False),
    "header with a negative total": (f"# faigfast filters=-1\n{GOOD}", False),
    "header with a huge total": (f"# faigfast filters={10**40}\n{GOOD}", False),
    "header with a total of text": (f"# faigfast filters=many\n{GOOD}", False),
    "header with a total of 0": (f"# faigfast filters=0\n{GOOD}", False),
    "header with no total": (f"# faigfast filters=\n{GOOD}", False),
    "header with two totals": (f"# faigfast filters=12 filters=4\n{GOOD}", False),
    "header of a long word": (f"# faigfast index={'a' * 10**6}\n{GOOD}", True),
    "million lines": ("\n".join(map(str, range(10**6))), False),
}
TWELVE: dict[str, tuple[str, bool]] = {
    "beyond the total": ("12\n", False),
    "header beside the total": (f"# faigfast filters=13\n{GOOD}", True),
    "within": (GOOD, True),
}
VALID = ("million lines",)  # read with its own values


def _written(content: str | bytes) -> Callable[[Path], object]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / FILE).write_bytes(raw)


def hostile_files(random: Random) -> list[Hostile]:
    """Give all hostile files of indices."""
    files = [
        Hostile(f"{reader}: {name}", reader, _written(content), readable)
        for reader, texts in (("indices", TEXTS), ("indices of 12", TWELVE))
        for name, (content, readable) in texts.items()
        if name not in VALID
    ]
    return files + misplaced("indices")
