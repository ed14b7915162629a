"""Accuracy of the usual numbers of points on images of several sizes, on trained pairs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from faigfast.analysis.evaluation import Crops, crops
from faigfast.attribution.one_call import attribute
from faigfast.bench.accuracy import (
    AUTHORS,
    DEFAULT,
    RuleAccuracy,
    RuleVariant,
    compare,
    degradations_of,
)
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.integration.refinement import LARGE, LEVELS, STEPS_OF_LARGE, default_steps
from faigfast.io.progress import progress_bar
from faigfast.zoo.pairs import shipped_pair

# Pairs with ReLU kinks: smooth networks need far fewer points.
PAIRS = ("srresnet-32x8-x2", "srcnn-24x4-x2")
# Side of the ground truth in pixels → the most crops of a photograph.
SIZES = {48: 12, 96: 8, 128: 6, 256: 2}
REFERENCE = RuleVariant("averaged", 160)
RULE_VARIANTS = (
    AUTHORS,
    DEFAULT,
    RuleVariant("averaged", LEVELS[1]),
    *(
        RuleVariant(rule, default_steps(rule, pixels))
        for rule in STEPS_OF_LARGE
        for pixels in (1, LARGE)
    ),
)


@dataclass(frozen=True, eq=False)
class SizeAccuracy:
    """Accuracy of the rules on images of one size.

    Attributes
    ----------
    pair : str
        Name of the pair.
    side : int
        Side of the ground truth, in pixels.
    images : int
        Crops, each under every degradation.
    rows : list of RuleAccuracy
        `RULE_VARIANTS` against `REFERENCE`.
    """

    pair: str
    side: int
    images: int
    rows: list[RuleAccuracy]


def measure_by_size(
    pairs: Sequence[str] = PAIRS, *, progress: bool = True
) -> tuple[tuple[str, ...], list[SizeAccuracy]]:
    """Compare the usual numbers of points with a converged rule, on crops of several sizes.

    Parameters
    ----------
    pairs : sequence of str
        Of `faigfast.zoo.pairs.PAIRS`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    names : tuple of str
        Names of the photographs.
    sizes : list of SizeAccuracy
        Pair by pair.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    ValueError
        If a pair is unknown.
    """
    networks = {name: shipped_pair(name) for name in pairs}
    images = photographs(KEPT_OUT)
    sizes = []
    with progress_bar(total=len(networks) * len(SIZES), unit="size", disable=not progress) as bar:
        for name, pair in networks.items():
            for side, most in SIZES.items():
                bar.set_description(f"{name}, {side}×{side}")
                part = of_each_photograph(crops(images, degradations_of(pair[1]), side), most)
                batch = {"lq": part.lq, "gt": part.gt}
                exact, *others = (
                    attribute(*pair, batch, **asdict(variant))
                    for variant in (REFERENCE, *RULE_VARIANTS)
                )
                rows = [
                    compare(str(variant), result, exact)
                    for variant, result in zip(RULE_VARIANTS, others, strict=True)
                ]
                sizes.append(SizeAccuracy(name, side, len(part.gt), rows))
                bar.update()
    return tuple(images), sizes


def of_each_photograph(data: Crops, most: int) -> Crops:
    """Take at most `most` crops of each photograph, in the middle of as many equal parts."""
    by_photograph: dict[str, list[int]] = {}
    for n, name in enumerate(data.photographs):
        by_photograph.setdefault(name, []).append(n)
    chosen = []
    for positions in by_photograph.values():
        count = min(most, len(positions))
        chosen += [positions[(2 * i + 1) * len(positions) // (2 * count)] for i in range(count)]
    return data.at(chosen)
