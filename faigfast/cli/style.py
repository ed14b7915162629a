"""`faigfast style`: the style of the figures, to be changed."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.report.paper import STYLE


def run(options: Any, words: Sequence[str]) -> None:
    """Print the style file."""
    print(STYLE.read_text(encoding="utf-8"), end="")
