"""Tally: the count of one class of faults."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Tally:
    """How many faults of a class were tried, and how the product answered them.

    Attributes
    ----------
    name : str
        The class of faults.
    tried, fine : int
        Number of faults, and of those that were answered as they should be.
    bad : list of str
        One sentence for every other fault.
    """

    name: str
    tried: int
    fine: int
    bad: list[str]

    @classmethod
    def of(cls, name: str, complaints: Iterable[str]) -> "Tally":
        """Count faults by their complaints; "" where there is none."""
        every = list(complaints)
        bad = [complaint for complaint in every if complaint]
        return cls(name, len(every), len(every) - len(bad), bad)


def markdown(tallies: Iterable[Tally]) -> str:
    """Give tallies as a Markdown table."""
    rows = [f"| {t.name} | {t.tried} | {t.fine} | {len(t.bad)} |" for t in tallies]
    return "\n".join(["| class | tried | fine | bad |", "|---|--:|--:|--:|", *rows])
