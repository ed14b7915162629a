"""A page with every kind of part, of a small pair."""

import torch

from faigfast.analysis.contrasts import one_against_rest, overlap
from faigfast.analysis.data_frames import csv_text, text_table
from faigfast.analysis.locations import Locations
from faigfast.analysis.masking import mask
from faigfast.analysis.modulation import modulate, modulated_images
from faigfast.analysis.pruning import channel_importance
from faigfast.analysis.report.charts import matrix_chart
from faigfast.analysis.report.conclusion import conclude
from faigfast.analysis.report.drawing import data_uri
from faigfast.analysis.report.effect_charts import location_chart, method_chart, modulation_chart
from faigfast.analysis.report.filter_browser import browse_filters
from faigfast.analysis.report.filter_charts import channel_chart, layer_chart
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.scenes import BASELINE, INPUT, TARGET, TRUTH, Dial, Scene, Shot
from faigfast.analysis.report.tables import masked_networks

DEGRADATIONS = ("blur", "noise")


def masked(parts):
    nets, _, measured, result = parts
    return mask(*nets, result, measured, border=2, fractions=(0.1, 0.3))


def scene(title="one, blur", side=24):
    generator = torch.Generator().manual_seed(2)
    names = (INPUT, BASELINE, TARGET, "blur filters masked", TRUTH)
    shots = [
        Shot(n, data_uri(torch.rand(3, side, side, generator=generator)), "9 dB") for n in names
    ]
    return Scene(title, shots, side)


def every_part(parts):
    """Make the page from `cases.analysis.study_parts`."""
    nets, _, measured, result = parts
    page, masking = Page("A page with every part"), masked(parts)
    contrasts = one_against_rest(result.degradations)
    sets = {c.name: c.top(result, 0.2) for c in contrasts}
    page.conclude(conclude(masking, result, scene(), "Chosen."))
    page.heading("Charts")
    page.chart(method_chart(masking))
    strengths = (0.0, 0.5, 1.0)
    page.chart(modulation_chart(modulate(*nets, sets, measured, strengths=strengths, border=2)))
    crops = torch.tensor([0.0, 0.4, 0.1])
    shares = {"baseline": 0.0, "target": 1.0, "masked": 0.3, "grafted": -2.0, "weights moved": 4.0}
    psnr = {name: {"psnr": {"blur": 20 + v + (0.5 + v) * crops}} for name, v in shares.items()}
    kept = [Locations("blur", "blur", 3, psnr)]
    page.chart(location_chart(kept))
    page.heading("Filters")
    page.chart(layer_chart(sets, result.index))
    page.chart(channel_chart(channel_importance(nets[1], result)))
    names = list(sets)
    page.chart(matrix_chart("overlap", overlap(sets), names, names, "Overlap", ("of", "also of")))
    page.browser(browse_filters(*nets, result, contrasts))
    page.heading("Images")
    page.scene(scene())
    page.scene(scene("two, noise"))
    lq = measured.lq["blur"][:1]
    images = modulated_images(*nets, sets, lq, [{names[0]: s} for s in strengths])
    shown = [(data_uri(x), f"{n} dB") for n, x in enumerate(images)]
    page.dial(Dial("one slider", [("blur", strengths)], shown, 24))
    page.dial(Dial("two sliders", [("blur", (0.0, 1.0)), ("noise", strengths)], 2 * shown, 24))
    page.heading("Table")
    data = masked_networks(masking)
    page.table(*text_table(data), name="masking", csv=csv_text(data))
    page.table(["a", "b"], [["x", "1"]], summary="folded", name="folded")
    page.code("faigfast report")
    return page
