"""What `faigfast attribute` says about a result: lines for the terminal, values of each image."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from faigfast.analysis.report.line import line_sentence
from faigfast.analysis.report.tables import completeness_table
from faigfast.cli.result_files import rankable
from faigfast.integration.cautions import few_images_sentence
from faigfast.io.fitted_table import fitted
from faigfast.io.text_table import counted
from faigfast.result import Attribution
from faigfast.result_errors import errors_in_words

ROLES = ("baseline", "target")
LAYERS_SHOWN = 3


def summary(result: Attribution, pair: tuple[nn.Module, nn.Module], top: Sequence[float]) -> str:
    """Summarise a run in a few lines."""
    known = result.error.isfinite().any()
    share = min(top, default=0.01)
    lines = [
        *(f"{role:<9}{net.faigfast_source}" for role, net in zip(ROLES, pair, strict=True)),
        f"{counted(result.images, 'image')}, {counted(len(result.index), 'filter')}, "
        f"{result.sampling}, {result.backend} {result.precision}; "
        f"errors are those of completeness{', estimated those of the scores' if known else ''}",
        line_sentence(result),
        "",
        fitted(*completeness_table(result)),
        "",
    ]
    for name in result.degradations:
        if not rankable(result, name):
            lines.append(f"no filters of {name}: its scores or contrasts are all 0")
            continue
        try:
            best = result.top(name, share)
        except ValueError:  # --parameters scores fewer filters
            best = result.ranking(name)
        names = (result.index.locate(flat)[0] for flat in best.indices.tolist())
        layers = Counter(layer.removesuffix(".weight") for layer in names)
        shown = ", ".join(f"{layer} {n}" for layer, n in layers.most_common(LAYERS_SHOWN))
        lines.append(f"top {len(best)} filters of {name}: {shown}")
    if errors := errors_in_words(result):
        lines.append(errors)
    if few := few_images_sentence(result.images):
        lines.append(few)
    return "\n".join(lines)


def by_image(result: Attribution, names: Sequence[str]) -> list[dict[str, Any]]:
    """Losses, completeness and barrier of every image, in the order of the scores."""
    barrier = result.barrier
    return [
        {
            "name": name,
            "degradations": {
                degradation: {
                    "loss_baseline": finite(result.losses[d, n, 0]),
                    "loss_target": finite(result.losses[d, n, 1]),
                    "completeness": finite(result.completeness[d, n]),
                    "estimated_error": finite(result.error[d, n]),
                    "barrier": finite(barrier[d, n]),
                    "points": int(result.points[d, n]),
                }
                for d, degradation in enumerate(result.degradations)
            },
        }
        for n, name in enumerate(names)
    ]


def finite(value: Tensor | float) -> float | None:
    """Give a finite number, or None, since JSON has no infinity and no NaN."""
    return float(value) if math.isfinite(value) else None
