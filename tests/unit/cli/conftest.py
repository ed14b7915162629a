"""One parser for all tests: building it takes four times as long as a refusal."""

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
