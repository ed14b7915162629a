"""The standalone program: descriptors of wgmma, and the Hopper convolution on 13 shapes."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from ..children import output_of
from ..items import BUILT
from ..outcomes import NotRunError, StepFailedError
from ..staging import PROGRAM, is_current

PARTS = {"descriptors": 5, "shapes": 12, "speed": 6}  # seconds
WRONG_CARD = 77  # exit status


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a part of the program."""
    path = BUILT / PROGRAM
    if not is_current(PROGRAM):
        raise NotRunError("the program was not built from these sources; see the item build")
    return {part: partial(run, [str(path), part], s) for part, s in PARTS.items()}


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a part; its lines are JSON, each with `name` and, where it is a check, `right`.

    Raises
    ------
    StepFailedError
        If a check is wrong, or the program fails or takes too long.
    """
    code, output = output_of(command, seconds)
    lines = []
    for text in output.splitlines():
        if text.startswith("{"):
            lines.append(json.loads(text))
    wrong = [line["name"] for line in lines if not line.get("right", True)]
    figures = {"lines": lines}
    if code == WRONG_CARD:
        raise NotRunError("the card is not of compute capability 9.0")
    if code is None:
        raise StepFailedError(
            f"killed when its {seconds} s were over, after {len(lines)} lines", figures
        )
    if wrong:
        raise StepFailedError(
            f"{len(wrong)} of {len(lines)} wrong: {', '.join(wrong)}"[:300], figures
        )
    if code != 0 or not lines:
        last = (output.strip().splitlines() or [""])[-1]
        raise StepFailedError(f"exit status {code}: {last}"[:300], figures)
    return figures
