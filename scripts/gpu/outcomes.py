"""How a step says that it did not pass.

Not in `run.py`: that module runs as `__main__`, where its classes would be others than those that
the bodies import.
"""

from typing import Any


class NotRunError(Exception):
    """A step cannot run here; the text says why."""


class StepFailedError(Exception):
    """A step failed; the text says why, and its line keeps the figures."""

    def __init__(self, text: str, figures: dict[str, Any]) -> None:
        super().__init__(text)
        self.figures = figures
