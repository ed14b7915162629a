"""Every architecture of spandrel: right, or refused with a reason."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "architectures"
sys.path.append(str(SCRIPTS))

from children import measured  # noqa: E402
from networks import INSTANCES  # noqa: E402
from packages import missing  # noqa: E402
from table import is_right, verdict  # noqa: E402

REFUSED = {"AuraSR": "random numbers", "MAT": "no convolution"}


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTANCES)
def test_scores_are_those_of_the_plain_loop(name):
    if why := missing():
        pytest.skip(why)
    row = measured(name, timed=False, seconds=300, memory=8 * 2**30)
    if name in REFUSED:
        assert REFUSED[name] in row.get("refused", verdict(row))
    else:
        assert "error" in row and is_right(row), verdict(row)
