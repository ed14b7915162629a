"""One parser for all tests, since building it takes four times as long as a refusal; no figures."""

from functools import cache

import pytest

from faigfast.cli.main import build_parser

shared_parser = cache(build_parser)


@pytest.fixture(scope="module", autouse=True)
def parser():
    """The parser of all commands, which the commands take too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faigfast.cli.main.build_parser", shared_parser)
        yield shared_parser()


@pytest.fixture
def undrawn(monkeypatch):
    """Figures without content, where a test is of something else: layout and drawing take longest.

    `analysis/report/test_paper_figures.py` draws every kind, and one test of each command its own.
    """
    monkeypatch.setattr(
        "faigfast.analysis.report.paper.content", lambda figure, suffix: suffix.encode()
    )
