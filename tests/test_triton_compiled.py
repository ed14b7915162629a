"""The Triton kernels compiled for cards that are not here: matrix instructions, and no spills."""

import re
from pathlib import Path

import pytest

from faigfast import _triton
from faigfast.bench import compile_kernels
from faigfast.bench.compiled import STATE
from faigfast.cli import main

pytestmark = pytest.mark.skipif(
    bool(_triton.missing()), reason=f"the kernels were not compiled: {_triton.missing()}"
)
MODES = ("fp16", "bf16", "tf32", "bf16x3", "ieee")
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async"}
SHARED = {80: 163, 90: 227}  # KB that a program can have
CONSUMER = 99  # KB that it has on sm_86, sm_89 and sm_120; the first tile must fit


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assert_well_made(case, capability, shared):
    from faigfast.kernels import aot

    made = aot.compiled(case.launch, capability)
    said = f"{case.launch.name} {case.mode} {case.shape} sm_{capability}: {made}"
    assert made.local == 0, said
    assert 0 < made.registers <= 255 and made.shared <= 1024 * shared, said
    if case.mode == "ieee":
        assert not made.instructions, said
    elif case.launch.arguments["M"] >= 64:  # 64 rows are the least of wgmma
        assert made.instructions.get(MATRIX[capability]), said
    else:
        assert made.instructions, said


@pytest.mark.parametrize("capability", MATRIX)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode, capability):
    from faigfast.kernels import cases

    found = cases.first_tiles(mode, cases.BODY)
    assert len(found) == 3
    for case in found:
        assert_well_made(case, capability, CONSUMER)


def test_every_layer():
    from faigfast.kernels import cases

    for shape in cases.SHAPES[1:]:
        for case in cases.first_tiles("fp16", shape):
            assert_well_made(case, 90, CONSUMER)


def test_every_tile():
    from faigfast.kernels import cases

    found = list(cases.every_tile("fp16", cases.BODY))
    assert len(found) > 9
    for case in found:
        assert_well_made(case, 80, SHARED[80])


def test_kernels_without_products_spill_nothing():
    from faigfast.kernels import aot, cases

    for case in cases.others():
        made = aot.compiled(case.launch, 80)
        assert made.local == 0 and not made.instructions


def test_the_command_writes_its_part_of_a_document(tmp_path, monkeypatch, capsys):
    from faigfast.kernels import cases

    few = cases.others()[:1]
    monkeypatch.setattr(cases, "first_tiles", lambda *_: [])
    monkeypatch.setattr(cases, "others", lambda: few)
    document = tmp_path / "gpu.md"
    main(["bench", "--compiled", "--quiet", "--output", str(document)])
    document.write_text(f"before\n{document.read_text()}after\n")
    main(["bench", "--compiled", "--quiet", "--output", str(document)])
    text = document.read_text()
    assert text.startswith("before") and text.rstrip().endswith("after")
    assert text.count("| path_weights, fp16, 64 → 64 | sm_90 |") == 1
    assert "path_weights" in capsys.readouterr().out


def test_every_row_of_the_document_says_that_no_device_ran_it():
    text = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:conv_|path_|channels_|score_|squared_).*$", text, re.MULTILINE)
    assert len(rows) > 60 and all(row.endswith(f"{STATE} |") for row in rows)
    assert all("| none | " + STATE in row for row in rows)


def test_in_the_interpreter_there_is_nothing_to_compile(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="no kernels to compile: TRITON_INTERPRET is 1"):
        compile_kernels(progress=False)
