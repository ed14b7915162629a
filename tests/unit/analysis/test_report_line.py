"""What reports and summaries say about the line between two networks."""

from dataclasses import replace

import torch
from cases.attributions import TWO, made

from faigfast.analysis.report.line import add_line, line_sentence
from faigfast.analysis.report.page import Page
from faigfast.integration.cautions import cautions
from faigfast.models.distance import Distance


def with_line(height):
    result = made(TWO)
    losses = torch.tensor([4.0, 2.0], dtype=torch.float64).expand(2, 2, 2).clone()
    line = torch.tensor([[0.5, 3 + 4 * height]], dtype=torch.float64).expand(2, 2, 1, 2).clone()
    return replace(
        result, losses=losses, line=line, points=torch.ones(2, 2, dtype=torch.int64),
        completeness=torch.zeros(2, 2), distance=Distance(0.5, {"a.weight": 0.5, "b.weight": 0.5}),
    )  # fmt: skip


def test_a_high_barrier_has_a_badge_with_its_reason():
    page, result = Page("t"), with_line(2.0)
    add_line(page, result)
    (badge,) = (part for part in page.parts if part["kind"] == "badge")
    (caution,) = cautions(result)
    assert (badge["text"], badge["reason"]) == (caution.badge, caution.note)
    assert badge["text"] == "barrier 2"
    assert '<strong class="badge warning">barrier 2</strong>' in page.html()


def test_a_low_barrier_has_none():
    page = Page("t")
    add_line(page, with_line(0.1))
    assert '<strong class="badge' not in page.html()
    assert "barrier blur 0.1, noise 0.1" in page.html()


def test_the_sentence_says_what_is_unknown():
    assert line_sentence(with_line(0.1)) == (
        "distance of the networks 0.5 of the baseline's norm; barrier blur 0.1, noise 0.1"
    )
    assert line_sentence(made(TWO)) == (
        "distance of the networks unknown; barrier unknown: no losses on the line"
    )
