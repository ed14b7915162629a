"""The benchmark of the C++ kernels and its document."""

import json
import sys
from functools import partial

import pytest

from faigfast.backend.cpu import extension as _extension
from faigfast.bench import measure_kernels
from faigfast.cli.main import main

module = sys.modules[measure_kernels.__module__]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    others = {
        "5×5, 8 → 4": partial(module.ConvolutionLayer, 8, 6, 2, kernel=5, outputs=4),
        "depthwise": partial(module.ConvolutionLayer, 8, 6, 2, groups=8),
        "5×5, 3 → 8": partial(module.ConvolutionLayer, 3, 6, 2, kernel=5, outputs=8),
        "transposed": partial(
            module.ConvolutionLayer, 8, 6, 2, kernel=4, stride=2, transposed=True
        ),
        "linear": partial(module.LinearLayer, 6, 9, 2, 5),
    }
    sizes = dict(CHANNELS=(8,), SIZES=(4, 5), SECONDS=0.0, PIXELS=40, OTHERS=others)
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
def test_every_instruction_set_and_pass_is_measured(monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", "portable")
    speeds = measure_kernels(progress=False)
    isas = _extension.module.supported()
    assert list(speeds.peak) == isas and min(speeds.peak.values()) > 0
    assert len(speeds.found) == 2 * len(module.PASSES) * (len(isas) + 1)
    assert all(row["gflops"] > 0 for row in speeds.found)
    assert 0 < max(speeds.errors.values()) < 1e-5
    assert _extension.module.isa() == "portable"
    assert len(speeds.others) == 5 * len(module.PASSES)
    left = {row["layer"] for row in speeds.others if row["own"] is None}
    assert left == {"5×5, 3 → 8"} and all(row["torch"] > 0 for row in speeds.others)


@pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
def test_the_document_keeps_what_stands_around(tmp_path, capsys):
    document = tmp_path / "cpu.md"
    assert main(["bench", "--kernels", "--quiet", "--output", str(document)]) in (0, None)
    document.write_text(f"before\n{document.read_text()}after\n")
    main(["bench", "--kernels", "--quiet", "--output", str(document)])
    text = document.read_text()
    assert text.startswith("before") and text.rstrip().endswith("after")
    assert "### portable" in text and "| 8, 5² |" in text and "(cpu.svg)" in text
    assert "### Other layers" in text and text.count("×**") == 4 * len(module.PASSES)
    assert (tmp_path / "cpu.svg").read_text().count("<svg") == 1
    main(["bench", "--kernels", "--quiet", "--output", str(tmp_path / "cpu.json")])
    assert json.loads((tmp_path / "cpu.json").read_text())["peak"]
    assert "portable" in capsys.readouterr().out


def test_without_the_extension_it_says_so(monkeypatch):
    monkeypatch.setattr(_extension, "module", None)
    with pytest.raises(ValueError, match="no kernels to measure"):
        measure_kernels(progress=False)
