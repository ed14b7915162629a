"""Tables within a width."""

import pytest

from faigfast.io.fitted_table import fitted
from faigfast.io.text_table import aligned

HEAD = ["filters", "method", *(f"a long heading {n}" for n in range(12))]
ROWS = [["blur", "faig", *(f"{n / 7:.3f}" for n in range(12))], ["noise", "–", *["–"] * 12]]


def test_a_narrow_table_is_unchanged():
    assert fitted(HEAD[:3], [row[:3] for row in ROWS]) == aligned(HEAD[:3], [r[:3] for r in ROWS])


@pytest.mark.parametrize("width", [40, 60, 100, 130])
def test_a_wide_table_fits_and_keeps_every_cell(width):
    text = fitted(HEAD, ROWS, width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for cell in (c for row in ROWS for c in row if c != "–"):
        assert cell in words
    assert words.count("heading") == 12


def test_headings_wrap_before_columns_are_divided():
    text = fitted(HEAD[:8], [row[:8] for row in ROWS], 100)
    assert "\n\n" not in text and text.splitlines()[-2].startswith("blur")
    blocks = fitted(HEAD, ROWS, 60).split("\n\n")
    assert len(blocks) > 1 and all("\nblur" in block for block in blocks)  # names come again


def test_extremes():
    assert fitted(["a" * 120], [["b"]]).startswith("a" * 120)
    assert "x" * 120 in fitted(["a", "b"], [["x" * 120, "1"]])
    assert fitted(["a" * 60, "b" * 60], []).startswith("a" * 60 + "  b")  # no block without one
