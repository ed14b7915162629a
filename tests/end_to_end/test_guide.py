"""The guide's code blocks run from top to bottom, as for a reader."""

import re
from pathlib import Path

import pytest

GUIDE = sorted((Path(__file__).parents[2] / "docs" / "guide").glob("*.md"))
NAMES = ("blur", "noise")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_a_page_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    printed = capsys.readouterr().out
    psnr = dict(re.findall(r"^(\w+ (?:target|masked)) ([\d.]+)$", printed, re.MULTILINE))
    blur, noise = (float(psnr[f"{n} target"]) - float(psnr[f"{n} masked"]) for n in NAMES)
    assert blur > 3 * abs(noise)  # the page says so
    assert (tmp_path / "blur_index.txt").is_file()
