"""Many networks measured on the same crops, one after the other; finished ones are kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from faigfast.analysis.evaluation import AGAINST_TARGET, Crops, MetricValues, measure, restore
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.io.progress import progress_bar


def measure_all(
    networks: Mapping[str, Callable[[], nn.Module]],
    data: Crops,
    *,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    target: nn.Module,
    finished_parts: FinishedParts | None = None,
    title: str = "networks",
    progress: bool = False,
) -> dict[str, MetricValues]:
    """Measure networks, each built only when it is measured.

    Parameters
    ----------
    networks : mapping of str to callable
        By name, which covers everything that the identity of `finished_parts` does not.
    data : Crops
        The crops to restore.
    border : int
        Pixels left out of PSNR and SSIM on every side.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`.
    target : nn.Module
        Network whose outputs the output differences compare with.
    finished_parts : FinishedParts, optional
        Keeps the values of every measured network.
    title : str
        Title of the progress bar.
    progress : bool
        Show it.

    Returns
    -------
    dict of str to dict
        Metric values by the networks' names.

    Raises
    ------
    ValueError
        As `measure`.
    """
    finished_parts = finished_parts or FinishedParts()
    reference: dict[str, Tensor] = {}

    def compute(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
        if not reference and any(name in AGAINST_TARGET for name in metrics):
            sides = data.gt.shape[2:]
            reference.update(
                {name: restore(target, lq, data.pad, sides) for name, lq in data.lq.items()}
            )
        values = measure(build(), data, border=border, metrics=metrics, reference=reference or None)
        return {
            f"{metric}/{degradation}": value
            for metric, by_degradation in values.items()
            for degradation, value in by_degradation.items()
        }

    values_by_network: dict[str, MetricValues] = {}
    for name, build in progress_bar(networks.items(), title, unit="network", disable=not progress):
        key = f"{name} {border} {' '.join(metrics)}"
        entries = {(m, d): f"{m}/{d}" for m in metrics for d in data.lq}
        kept = finished_parts.tensors(key, partial(compute, build), entries.values())
        for (metric, degradation), entry in entries.items():  # a file has its entries in any order
            values_by_network.setdefault(name, {}).setdefault(metric, {})[degradation] = kept[entry]
    return values_by_network
