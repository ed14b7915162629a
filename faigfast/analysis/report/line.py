"""What a report and a terminal say about the line between the two networks."""

import math

from faigfast.analysis.report.page import Page
from faigfast.integration.cautions import cautions, few_images_sentence, median_barriers
from faigfast.result import Attribution


def line_sentence(result: Attribution) -> str:
    """Give the networks' distance, and the median barrier of every degradation."""
    distance = float(result.distance)
    known = {name: b for name, b in median_barriers(result).items() if not math.isnan(b)}
    barriers = ", ".join(f"{name} {b:.2g}" for name, b in known.items())
    parts = [
        "distance of the networks unknown"
        if math.isnan(distance)
        else f"distance of the networks {distance:.3g} of the baseline's norm",
        f"barrier {barriers or 'unknown: no losses on the line'}",
    ]
    return "; ".join(parts)


def add_line(page: Page, result: Attribution) -> None:
    """Put a coloured badge for every caution, then the distance and the barriers."""
    for caution in cautions(result):
        page.badge(caution.badge, caution.note)
    if few := few_images_sentence(result.images):
        page.text(few)
    sentence = line_sentence(result)
    page.text(
        f"{sentence[0].upper()}{sentence[1:]}. The barrier is the height of the loss above the "
        "straight line between the losses of both networks, over the larger of the two, at the "
        "worst point, as median over images. It is low for a target that was trained on from the "
        "baseline."
    )
