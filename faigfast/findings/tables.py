"""The findings as tables and sentences."""

from torch import Tensor

from faigfast.findings.evaluation import mean_and_interval
from faigfast.findings.masking import Masking
from faigfast.result import Attribution

Table = tuple[list[str], list[list[str]]]


def masking_table(masking: Masking) -> Table:
    """Head and rows: a network, then PSNR and the undone share for each degradation."""
    inputs = list(masking.target)
    head = ["network"]
    for name in inputs:
        head += [f"{name}, dB", "to target, dB", "undone, %"]

    def row(label: str, psnr: dict[str, Tensor], undone: list[float]) -> list[str]:
        cells = [label]
        for name, share in zip(inputs, undone, strict=True):
            change, half = mean_and_interval(psnr[name] - masking.target[name])
            mean = float(psnr[name].mean())
            cells += [f"{mean:.2f}", f"{change:+.2f} ± {half:.2f}", f"{100 * share:.1f}"]
        return cells

    rows = [
        row("baseline", masking.baseline, [1.0] * len(inputs)),
        row("target", masking.target, [0.0] * len(inputs)),
    ]
    rows += [
        row(
            f"{100 * m.fraction:g} % {m.filters} masked",
            m.psnr,
            [masking.lost(m, name) for name in inputs],
        )
        for m in masking.masked
    ]
    return head, rows


def completeness_table(result: Attribution) -> Table:
    """Head and rows: a degradation, its mean losses and the relative errors of its sums.

    The worst estimated error of its scores follows where there is one, and how many images reached
    `tol` where it was given.
    """
    head = ["degradation", "images", "loss of baseline", "loss of target", "median", "worst"]
    known, tol = bool(result.error.isfinite().any()), result.setting.tol
    if known:
        head.append("estimated")
    if tol is not None:
        head.append(f"within {tol:g}")
    rows = []
    for d, name in enumerate(result.degradations):
        losses, errors = result.losses[d], result.completeness[d]
        first, last = losses.mean(0).tolist()
        middle, worst = float(errors.median()), float(errors.max())
        cells = [f"{first:.4g}", f"{last:.4g}", f"{middle:.2e}", f"{worst:.2e}"]
        if known:
            cells.append(f"{float(result.error[d].max()):.2e}")
        if tol is not None:
            cells.append(f"{int(result.reached[d].sum())} of {result.images}")
        rows.append([name, str(result.images), *cells])
    return head, rows


def verdicts(masking: Masking) -> list[str]:
    """Say for every degradation what masking the smallest share does, good or bad."""
    sentences = []
    for m in masking.masked:
        if m.fraction != masking.masked[0].fraction or m.filters == "random":
            continue
        chance = masking.find("random", m.fraction)
        share = f"{100 * m.fraction:g} %"
        others = " and ".join(
            f"{100 * masking.lost(m, other):.0f} % of that on {other}"
            for other in masking.target
            if other != m.filters
        )
        sentences.append(
            f"Masking the top {share} {m.filters} filters undoes "
            f"{100 * masking.lost(m, m.filters):.0f} % of the target's gain on {m.filters} "
            f"(random ones {100 * masking.lost(chance, m.filters):.0f} %), and {others}."
        )
    return sentences
