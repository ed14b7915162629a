"""`faigfast ablate`: every filter put back to the baseline's alone, and what is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faigfast.analysis.ablation import ablate
from faigfast.analysis.ablation_result import Ablation
from faigfast.analysis.data_frames import write_data_frame
from faigfast.analysis.report.captioned import layers_figure
from faigfast.analysis.report.paper import PaperFigure
from faigfast.cli.estimate import announce_ablation
from faigfast.cli.remarks import describe_crops
from faigfast.cli.study import check_shares, open_study, publish
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.ranking import number_of_filters
from faigfast.io.fitted_table import fitted
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted

RANKED = "Ranked by the loss that each costs when it alone goes back to the baseline's weights."
SHOWN = 10  # filters of each degradation that are printed


def run(options: Any, words: Sequence[str]) -> None:
    """Ablate, print the filters that matter most, and write all."""
    check_shares(options.top)
    study = open_study(options)
    index = FilterIndex.of(study.target)
    filters = None
    if options.filters:
        filters = FilterSet.load(options.filters, len(index))
        filters.check_pair(study.baseline, study.target)
    folder = Path(options.output)
    with alone_in(folder):
        data = study.measured
        announce_ablation(study, len(index) if filters is None else len(filters), options)
        result = ablate(
            study.baseline,
            study.target,
            {"lq": data.lq, "gt": data.gt},
            filters=filters,
            by=options.by,
            biases=options.biases,
            memory=options.memory,
            folder=study.finished_parts,
            progress=study.progress,
            **study.options,
        )
        result.save(folder / "ablation.safetensors")
        files = ["ablation.safetensors", *_rankings(result, options.top, folder)]
        files += write_data_frame(folder / "ablation", result.to_frame())
        for name in result.degradations:
            print(f"{name}: largest losses\n\n{_largest(result, name)}\n")
        left_out = [f"{s:g}" for s in dict.fromkeys(options.top) if not _enough(result, s)]
        remarks = list(result.notes)
        if left_out and result.by == "kernel":
            ablated = counted(len(result.numbers), "filter")
            remarks.append(f"No index files of {', '.join(left_out)}: {ablated} were ablated.")
        remarks.append(
            f"{describe_crops(study.measured)}; PSNR of all pixels, without rounding to 8 bit."
        )
        publish(
            options,
            words,
            "ablate",
            {},
            _figures(result, options.top[0], remarks[-1]),
            remarks,
            files,
        )


def _enough(result: Ablation, share: float) -> bool:
    """Whether kernels were ablated, and at least a share of all filters."""
    total = len(result.index)
    return result.by == "kernel" and number_of_filters(share, total, total) <= len(result.numbers)


def _figures(result: Ablation, share: float, about: str) -> dict[str, PaperFigure]:
    """Draw the layers of the filters whose ablation costs most, where all kernels were ablated."""
    if result.by != "kernel" or len(result.numbers) < len(result.index):
        return {}
    sets = {name: result.top(name, share) for name in result.degradations}
    return {"ablation layers": layers_figure(sets, result.index, f"{RANKED} {about}")}


def _rankings(result: Ablation, shares: Sequence[float], folder: Path) -> list[str]:
    """Write index files of the filters whose ablation costs most; give their names."""
    files = []
    for name in result.degradations:
        for share in dict.fromkeys(shares):
            if _enough(result, share):
                file = f"{name}_ablation_top_{share}_index.txt"
                result.top(name, share).save(folder / file)
                files.append(file)
    return files


def _largest(result: Ablation, name: str) -> str:
    """Write a table of the filters whose ablation costs most PSNR on a degradation."""
    changes = {other: result.psnr_change(other).mean(0) for other in result.degradations}
    losses = result.change(name).mean(0)
    order = losses.argsort(descending=True)[:SHOWN]
    head = ["layer", "out", *(["in"] if result.by == "kernel" else []), "loss"]
    rows = []
    for k in order.tolist():
        layer, out, into = result.index.locate(int(result.numbers[k]))
        place = [layer, str(out), *([str(into)] if result.by == "kernel" else [])]
        psnr = [f"{float(change[k]):+.3f}" for change in changes.values()]
        rows.append([*place, f"{float(losses[k]):+.3g}", *psnr])
    return fitted([*head, *(f"{other}, dB" for other in changes)], rows)
