"""Colours by meaning: one family for degradations, another for methods and networks."""

from collections.abc import Sequence

from faigfast.analysis.masking import SAME_LAYERS

# Okabe and Ito, for degradations and their filters alone.
DEGRADATIONS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195")
# Tol's muted family, for the rivals of FAIG; no colour is near blue or orange.
RIVALS = ("#882255", "#999933", "#332288", "#44AA99", "#AA4499", "#117733", "#6b5b4b")
BLACK, GRAY, RED = "black", "#888888", "#CC0000"
CONTROL = "#b8b8b8"  # random experiments
# Coprime numbers of both, so that many series differ in one of them.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """Give FAIG black, the two random controls gray, and every rival a colour of its own."""
    rivals = [name for name in methods if name not in ("faig", "random", SAME_LAYERS)]
    colours = {name: RIVALS[n % len(RIVALS)] for n, name in enumerate(rivals)}
    return {**colours, "faig": BLACK, "random": CONTROL, SAME_LAYERS: GRAY}


def experiment_colour(name: str, random: bool) -> str:
    """Give the discovered filters black, random experiments gray."""
    return CONTROL if random else BLACK if name in ("masked", "grafted", "discovered") else GRAY
