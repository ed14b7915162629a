"""Order of filters by their contrast; nothing is ranked by zeros alone."""

from collections.abc import Sequence

import torch
from torch import Tensor


def best_first(
    candidates: Tensor, scores: Tensor, contrast: Tensor, name: str, others: Sequence[str]
) -> Tensor:
    """Order filters by their contrast, best first, ties as they come.

    Parameters
    ----------
    candidates : Tensor
        [K], flat indices of the scored filters.
    scores, contrast : Tensor
        [F], mean scores and contrast of one degradation.
    name : str
        The degradation.
    others : sequence of str
        Degradations whose scores the contrast subtracts.

    Returns
    -------
    Tensor
        [K], flat indices.

    Raises
    ------
    ValueError
        If the scores of all candidates, or their contrasts, are exactly 0.
    """
    count = len(candidates)
    if not scores[candidates].any():
        raise ValueError(
            f"the scores of {name!r} are exactly 0 for all {count} scored filters, which ranks "
            "none above another; expected layers that differ between the networks and whose "
            "gradient reaches the loss: merge branches first by fuse=, or choose other layers by "
            "parameters="
        )
    values = contrast[candidates]
    if not values.any():
        raise ValueError(
            f"the contrast of {name!r} against {', '.join(map(repr, others))} is exactly 0 for all "
            f"{count} scored filters, which ranks none above another; expected images that differ"
        )
    return candidates[torch.argsort(values, descending=True, stable=True)]
