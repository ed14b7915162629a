"""Items of `scripts.gpu`, their sources and documents, and the tables made of recorded lines."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cases.gpu_bounds import BOUNDS

from faigfast.backend.gpu.auto_precision import FASTEST_FIRST

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))

from scripts.gpu.items import FIRST, ITEMS, SECOND, TABLE, Item  # noqa: E402
from scripts.gpu.markdown import report  # noqa: E402
from scripts.gpu.results import Results, newest, recorded  # noqa: E402


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_items_body_and_sources_exist(item):
    assert find_spec(f"scripts.gpu.bodies.{item.body}")
    assert (ROOT / "scripts" / "gpu" / "bodies" / f"{item.body}.py") in item.files()
    for pattern in item.sources:
        assert list(ROOT.glob(pattern)), pattern
    assert item.start_command()[1:] == ["-m", "scripts.gpu.run", item.name]


def test_the_items_are_those_of_both_calls():
    assert len(ITEMS) == len(FIRST) + len(SECOND) and set(TABLE) < set(FIRST)
    assert [item.name for item in TABLE] == [
        "table-cudnn", "table-torch", "table-triton", "table-cuda", "table-hopper",
    ]  # fmt: skip
    # A build takes at most its seconds, however long what is beside it takes.
    assert FIRST[0].name == "build" and FIRST[0].background and FIRST[0].seconds <= 40
    assert all(item.seconds <= 200 for item in ITEMS.values())


def test_the_hash_is_that_of_names_contents_and_words(tmp_path):
    (tmp_path / "a.py").write_text("1")
    item = Item("x", "body", 1, ("*.py",), ("cuda",))
    first = item.sources_hash(tmp_path)
    assert first == item.sources_hash(tmp_path)
    assert first != Item("x", "body", 1, ("*.py",), ("triton",)).sources_hash(tmp_path)
    (tmp_path / "a.py").write_text("2")
    second = item.sources_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, item.sources_hash(tmp_path)}) == 3


def test_every_item_is_documented_with_its_seconds():
    text = (ROOT / "docs" / "lab" / "gpu.md").read_text(encoding="utf-8")
    told = {}
    for names, seconds in re.findall(r"^\| (`.*?) \|.*\| ([\d, ]+) \|$", text, re.MULTILINE):
        full = []
        for name in re.findall(r"`([\w-]+)`", names):
            stem = full[0].rpartition("-")[0] if full else ""
            full.append(stem + name if name.startswith("-") else name)
        told |= dict(zip(full, map(float, seconds.split(", ")), strict=True))
    assert told == {name: item.seconds for name, item in ITEMS.items()}
    assert text.count("not yet run") <= 1


def test_every_precision_is_held_to_its_ranking():
    """Another test holds the choices of `auto` to an overlap of 0.99."""
    assert set(FASTEST_FIRST) | {"fp32"} == set(BOUNDS)
    assert {name for name, (_, _, least) in BOUNDS.items() if least < 0.99} == {"bf16"}


STAMP = {"device": "H200", "versions": {"torch": "2.11"}, "commit": "abc", "sources": "s"}


@pytest.fixture
def lines(tmp_path):
    """Lines of a complete session, as the items write them."""
    results = Results(tmp_path / "gpu.jsonl")

    def add(item, step, state="passed", reason="", **figures):
        results.append(
            item=item, step=step, state=state, seconds=1.5, reason=reason, figures=figures, **STAMP
        )

    add("ceilings", "matmul, fp16", seconds=1e-3, flops=800e9)
    add("ceilings", "copy", seconds=5e-4, bytes=2 << 30)
    add("conv64", "descriptors", "failed", "1 of 2 wrong: K-major, start in row 3", lines=[
        {"name": "K-major, start in row 3", "right": False, "with base offset": True},
        {"name": "MN-major, start in row 3", "holds": True, "with base offset": True},
    ])  # fmt: skip
    add("conv64", "speed", lines=[{"name": "8×256²", "seconds": 1e-4, "flops": 40e9}])
    add("table-torch", "forward, 8×256²", seconds=2e-4, flops=40e9, error=1e-4)
    add("table-triton", "forward, 8×256²", "begun")
    add("table-triton", "forward, 8×256²", seconds=1e-4, flops=40e9, error=1e-4)
    add("table-hopper", "forward, 8×256²", "failed", "the error is over the bound", error=0.5)
    add("one-shape-cuda", "score reduction", error=1e-7)
    add("one-shape-triton", "prelu", "not run", "the backend leaves it to torch")
    add(
        "attribute-cuda", "48²×16, fp16", seconds=0.1, least=0.09, most=0.2, first=3.0,
        launches=1234, overlap=0.997, longest=[], **{"cpu seconds": 0.05, "gpu seconds": 0.08},
    )  # fmt: skip
    add("memcheck", "triton", summary="ERROR SUMMARY: 0 errors")
    add("tests", "test_gpu_pairs", "hung", "killed after its 200 s")
    add("experiment", "cuda fp16", text="a | table\nof text")
    add("tests", "test_gpu_hopper", "begun")
    return results.lines()


def test_the_tables_show_what_is_recorded(lines):
    text = report(lines)
    rows = text.splitlines()
    assert rows[0].startswith("H200; torch 2.11; commit abc; 20")
    for row in (
        "| matmul, fp16, 8192³ | 800 TFLOP/s |",
        "| copy of 1 GiB, read and written | 4.29 TB/s |",
        "| descriptors | K-major, start in row 3 | wrong; with a base offset right |",
        "| descriptors | MN-major, start in row 3 | right |",
        "| speed | 8×256² | 100.0 µs, 400 TFLOP/s, 50% of the product |",
        "|  | torch | triton | hopper |",
        "| forward, 8×256² | 200.0 (25%) | 100.0 (50%) | failed |",
        "| score reduction | – | 1.0e-07 |",
        "| prelu | not run | – |",
        "| 48²×16, fp16 | cuda | 0.1000 | 0.0900–0.2000 | 3.0 | 0.0500 | 0.0800 | 1234 | 0.997 |",
        "| memcheck, triton | passed | ERROR SUMMARY: 0 errors |",
        "| tests | 1 hung, 1 interrupted | 3.0 | older |",
        "| tests, test_gpu_pairs | hung | killed after its 200 s |",
        "a | table",
    ):
        assert row in rows, f"{row}\n{text}"
    assert "cannot be shown" not in text


def test_tables_are_of_the_device_of_the_newest_line(lines):
    other = {**lines[0], "device": "A100", "figures": {"seconds": 1e-3, "flops": 300e9}}
    text = report([*lines, other])
    assert "300 TFLOP/s" in text and "800 TFLOP/s" not in text and "4.29" not in text


def test_lines_of_other_sources_and_devices_are_no_results(lines):
    assert set(newest(lines, "conv64", STAMP)) == {"descriptors", "speed"}
    for other in ({"sources": "t"}, {"device": "A100"}):
        assert not newest(lines, "conv64", STAMP | other)
    assert recorded(lines, "conv64", STAMP) == {"descriptors", "speed"}
    assert recorded(lines, "conv64", STAMP, retry=True) == {"speed"}
    whole = [*lines, {"item": "conv64", "step": "", "state": "complete", **STAMP}]
    assert recorded(whole, "conv64", STAMP) is None
    assert recorded(whole, "conv64", STAMP, retry=True) == {"speed"}
    assert recorded(lines, "tests", STAMP) == {"test_gpu_pairs"}
