"""The demonstration: FAIG on the shipped pair and photographs it was not trained on."""

import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.analysis.evaluation import crops, mean_and_interval, restore
from faigfast.analysis.masking import DRAWS, FRACTIONS, Masking, Measurement, mask
from faigfast.analysis.metrics import psnr
from faigfast.analysis.report.builder import write_report
from faigfast.analysis.report.captioned import demo_figure, images_figure, layers_figure
from faigfast.analysis.report.conclusion import conclude
from faigfast.analysis.report.drawing import data_uri
from faigfast.analysis.report.effect_charts import masking_chart
from faigfast.analysis.report.filter_browser import browse_filters
from faigfast.analysis.report.filter_charts import layer_chart
from faigfast.analysis.report.image_figures import side_by_side
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.paper import FigureFiles, paper_style
from faigfast.analysis.report.scenes import BASELINE, INPUT, TARGET, TRUTH, Scene, Shot
from faigfast.analysis.report.sections.ability import add_completeness
from faigfast.analysis.report.tables import completeness_table, masking_table, verdicts
from faigfast.analysis.undone import MEANING, Undone
from faigfast.attribution.one_call import attribute
from faigfast.data import KEPT_OUT, Degradation, photographs
from faigfast.io.atomic import atomic_write, write_json
from faigfast.io.fitted_table import fitted
from faigfast.io.text_table import counted
from faigfast.result import Attribution
from faigfast.zoo.pairs import shipped_pair

SCALE = 2
DEGRADATIONS = {
    "blur": Degradation(blur=2.0, scale=SCALE),
    "noise": Degradation(noise=0.1, scale=SCALE),
}
CROP = 96  # ground-truth pixels
SHOWN_CROP = 192
SHOWN_FRACTION = FRACTIONS[0]
MONTAGE = ("chelsea, blur", "chelsea, noise")  # rows of masking.png
INTRODUCTION = (
    "Which filters of a blind super-resolution network remove blur, and which remove noise? Filter "
    "attribution with integrated gradients (FAIG) ranks the filters. Masking sets the top filters "
    "back to their values before the network was trained on degraded images: the ability that the "
    "network then loses is the ability that these filters give it."
)
# Every fourth crop is attributed, every second of the others is restored.
ATTRIBUTED, MEASURED = slice(0, None, 4), slice(0, None, 2)


def run_demo(
    output: str | os.PathLike[str] = "faigfast-demo",
    *,
    steps: int = 20,
    progress: bool = True,
    figures: FigureFiles | None = None,
) -> Path:
    """Attribute blur and noise, mask the top filters, print the PSNR and write a report.

    Parameters
    ----------
    output : path-like
        Folder that receives `report.html`, `masking.png`, `figures.json` and
        `attribution.safetensors`.
    steps : int
        Midpoints on the line.
    progress : bool
        Show progress bars.
    figures : FigureFiles, optional
        Figures for papers in the folder `figures`; None: none.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    ImportError
        If an extra is missing, by name.
    """
    start = time.perf_counter()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    baseline, target = shipped_pair()
    images = photographs(KEPT_OUT)
    data = crops(images, DEGRADATIONS, CROP)
    attributed, measured = data.part(ATTRIBUTED), data.without(ATTRIBUTED).part(MEASURED)
    result = attribute(
        baseline, target, {"lq": attributed.lq, "gt": attributed.gt}, steps=steps, progress=progress
    )
    result.save(output / "attribution.safetensors")
    masking = mask(baseline, target, result, measured, border=SCALE, progress=progress)
    conditions = (
        f"PSNR in dB, RGB, border of {SCALE} pixels left out, output rounded to 8 bit; mean over "
        f"{counted(len(measured.names), 'crop')} of {CROP}×{CROP} from {', '.join(images)}. To "
        "target: mean change within a crop ± half of its 95 % confidence interval. Undone: share "
        "of the target's gain over the baseline that masking takes away. The filters were found on "
        f"{len(attributed.names)} other crops. Random of the layers of a degradation's filters: as "
        f"many in each layer; random rows are means over {DRAWS} sets. {MEANING}"
    )
    head, rows = masking_table(masking)
    examples, gains = _examples(baseline, target, result, images)

    scenes = [_scene(title, images_by_label) for title, images_by_label in examples.items()]

    def restored(page: Page) -> None:
        page.heading(f"Photographs, {100 * SHOWN_FRACTION:g} % of the filters masked")
        page.text("The middle of every photograph that was kept out of training.", note=True)
        for scene in scenes:
            page.scene(scene)

    def masked(page: Page) -> None:
        page.heading("PSNR against masked share")
        best = max(range(len(gains)), key=lambda n: gains[n])
        note = (
            "Chosen, not typical: here the target gains most over the baseline, "
            f"{gains[best]:.1f} dB; the mean over the {len(gains)} images below is "
            f"{sum(gains) / len(gains):.1f} dB."
        )
        page.conclude(conclude(masking, result, scenes[best], note))
        page.chart(masking_chart(masking))
        page.table(head, rows, name="masking")
        page.text(conditions, note=True)

    def layers(page: Page) -> None:
        page.heading(f"Layers of the top {100 * SHOWN_FRACTION:g} %")
        tops = {name: result.top(name, SHOWN_FRACTION) for name in result.degradations}
        page.chart(layer_chart(tops, result.index))

    def filters(page: Page) -> None:
        page.heading("Filter browser")
        page.browser(browse_filters(baseline, target, result, masking.contrasts))

    def completeness(page: Page) -> None:
        page.heading("Completeness")
        add_completeness(page, result)
        page.table(*completeness_table(result), name="completeness")

    write_report(
        output / "report.html",
        "FAIG on the shipped pair",
        [INTRODUCTION],
        {
            "photographs": restored, "masking": masked, "layers": layers, "filters": filters,
            "completeness": completeness,
        },
        f"faigfast demo --steps {steps}",
        progress=progress,
        seconds_before=time.perf_counter() - start,
    )  # fmt: skip
    with atomic_write(output / "masking.png") as path, paper_style():
        side_by_side([examples[name] for name in MONTAGE]).savefig(path, dpi=160)
    write_json(output / "figures.json", _figures(masking))

    if figures is not None:
        shown = f"{', '.join(MONTAGE)}; {100 * SHOWN_FRACTION:g} % of the filters masked"
        tops = {name: result.top(name, SHOWN_FRACTION) for name in result.degradations}
        attributed_crops = f"Attributed: {counted(len(attributed.names), 'crop')}."
        montage = [examples[name] for name in MONTAGE]
        for name, figure in {
            "photographs": images_figure(montage, f"{shown}; PSNR of each image in dB."),
            "masking curves": demo_figure(masking, conditions),
            "layers": layers_figure(tops, result.index, attributed_crops),
        }.items():
            figures.write(output / "figures", name, figure)
    print(fitted(head, rows))
    print(f"\n{conditions}\n")
    print("\n".join(verdicts(masking)))
    print(f"\n{output / 'report.html'}, after {time.perf_counter() - start:.0f} s")
    return output / "report.html"


def _examples(
    baseline: nn.Module, target: nn.Module, result: Attribution, images: dict[str, Tensor]
) -> tuple[dict[str, dict[str, Tensor]], list[float]]:
    """Restore the middle of every photograph by every network.

    Returns title to captioned images, and the target's gain over the baseline in dB for each.
    """
    networks = {BASELINE: baseline, TARGET: target}
    for name in result.degradations:
        networks[f"{name} filters masked"] = result.top(name, SHOWN_FRACTION).swap(baseline, target)
    examples, gains = {}, []
    for name, image in images.items():
        top, left = ((side - SHOWN_CROP) // 2 // SCALE * SCALE for side in image.shape[1:])
        gt = image[None, :, top : top + SHOWN_CROP, left : left + SHOWN_CROP]
        for degradation, degrade in DEGRADATIONS.items():
            lq = degrade(gt)
            columns = {f"{INPUT}, {degradation}": F.interpolate(lq, scale_factor=SCALE)[0]}
            qualities = {}
            for label, network in networks.items():
                restored = restore(network, lq)
                quality = float(psnr(restored, gt, border=SCALE))
                qualities[label] = quality
                columns[f"{label}, {quality:.1f} dB"] = restored[0]
            gains.append(qualities[TARGET] - qualities[BASELINE])
            columns[TRUTH] = gt[0]
            examples[f"{name}, {degradation}"] = columns
    return examples, gains


def _scene(title: str, images_by_label: dict[str, Tensor]) -> Scene:
    """Put captioned images into the page's order."""
    shots = []
    for label, picture in images_by_label.items():
        name, _, caption = label.partition(", ")
        shots.append(Shot(name, data_uri(picture), caption))
    return Scene(title, shots, SHOWN_CROP)


def _figures(masking: Masking) -> dict[str, Any]:
    """All means and intervals, the content of figures.json."""

    def summary(psnrs: dict[str, Tensor]) -> dict[str, list[float]]:
        return {name: list(mean_and_interval(values)) for name, values in psnrs.items()}

    def outcomes(m: Measurement) -> dict[str, Undone]:
        return {name: masking.outcome(m, name) for name in m.psnr}

    masked = [
        {
            "filters": m.filters,
            "method": m.method,
            "fraction": m.fraction,
            "psnr": summary(m.psnr),
            "undone": {n: None if o.outcome else o.share for n, o in outcomes(m).items()},
            "outcome": {n: o.outcome for n, o in outcomes(m).items() if o.outcome},
        }
        for m in masking.masked
    ]
    pair = {"baseline": summary(masking.baseline), "target": summary(masking.target)}
    return {**pair, "masked": masked}
