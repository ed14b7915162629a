"""Text and HTML of an attribution."""

import re
from dataclasses import replace

import torch
from cases.attributions import TWO, made
from cases.networks import images, kinked, pair

from faigfast import FilterIndex, attribute


def test_repr_names_the_layers_of_the_best_filters():
    index = FilterIndex(("a.weight", "b.weight"), ((10, 20, 3, 3), (5, 20, 1, 1)))
    scores = torch.zeros(1, 300)
    scores[0, [7, 9, 250]] = torch.tensor([3.0, 2.0, 1.0])
    text = repr(made({"x": scores, "y": scores.flip(1)}, index=index))
    assert text.splitlines()[1] == "  3 best filters for x: a (2), b (1)"
    assert text.splitlines()[2] == "  3 best filters for y: b (2), a (1)"


def test_repr_of_what_cannot_be_ranked_or_was_hardly_scored():
    zero = made({"x": torch.zeros(1, 4)})
    assert "for x: cannot be ranked" in repr(zero) and "cannot be ranked" in zero._repr_html_()
    few = made({"x": torch.ones(1, 400)}, [True, *[False] * 399])
    assert "1 best filter for x: a (1)" in repr(few)


def test_repr_ends_with_the_cautions():
    result = made(TWO)
    losses = torch.tensor([1.0, 2.0]).double().expand(2, 2, 2)
    text = repr(replace(result, losses=losses))
    assert text.splitlines()[-1].startswith("  caution: no gain under blur")


def test_html_has_a_row_a_degradation_and_escapes_names():
    scores = {"<b>blur</b>": TWO["blur"], "noise": TWO["noise"]}
    html = made(scores, notes=("a <script>",))._repr_html_()
    assert html.count("<tr>") == 3 and "<b>blur" not in html and "<script>" not in html
    assert "&lt;b&gt;blur&lt;/b&gt;" in html and "a &lt;script&gt;" in html
    assert html.startswith("<div>") and html.endswith("</div>")
    assert [html.count(f"<{tag}") for tag in ("td", "th>", "details", "ul")] == [18, 9, 1, 1]


def test_html_of_a_real_result_holds_its_numbers():
    result = attribute(*pair(kinked), images(2), steps=3)
    html = result._repr_html_()
    cells = re.findall("<td>(.*?)</td>", html)
    assert cells[0] == "lq" and cells[1] == f"{float(result.losses[0, :, 0].mean()):.3g}"
    assert cells[4] == f"{float(result.completeness.max()):.3g}" and cells[5] == "–"
    assert "2 images, 24 filters; averaged, 3 points" in html
