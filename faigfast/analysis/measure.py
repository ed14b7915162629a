"""Many networks measured on the same crops, one after the other; finished ones are kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn
from tqdm import tqdm

from faigfast.analysis.evaluation import AGAINST_TARGET, Crops, Values, measure, restore
from faigfast.io.finished_parts import Store


def measure_all(
    networks: Mapping[str, Callable[[], nn.Module]],
    data: Crops,
    *,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    target: nn.Module,
    store: Store | None = None,
    title: str = "networks",
    progress: bool = False,
) -> dict[str, Values]:
    """Measure networks that are built when their turn comes.

    Parameters
    ----------
    networks : mapping of str to callable
        By name, which tells all that the network follows from beside what the store knows.
    data : Crops
        What is restored.
    border : int
        Pixels left out of PSNR and SSIM on every side.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`.
    target : nn.Module
        With whose outputs the output differences compare.
    store : Store, optional
        Keeps every finished network's values.
    title : str
        Of the progress bar.
    progress : bool
        Show it.

    Returns
    -------
    dict of str to dict
        Values by the networks' names.

    Raises
    ------
    ValueError
        As `measure`.
    """
    store = store or Store()
    reference: dict[str, Tensor] = {}

    def compute(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
        if not reference and any(name in AGAINST_TARGET for name in metrics):
            reference.update({name: restore(target, lq) for name, lq in data.lq.items()})
        values = measure(build(), data, border=border, metrics=metrics, reference=reference or None)
        return {f"{m}/{d}": v for m, of in values.items() for d, v in of.items()}

    found: dict[str, Values] = {}
    for name, build in tqdm(networks.items(), title, unit="network", disable=not progress):
        key = f"{name} {border} {' '.join(metrics)}"
        entries = {(m, d): f"{m}/{d}" for m in metrics for d in data.lq}
        kept = store.tensors(key, partial(compute, build), entries.values())
        for (metric, degradation), entry in entries.items():  # a file has them in any order
            found.setdefault(name, {}).setdefault(metric, {})[degradation] = kept[entry]
    return found
