"""The box on top: three sentences, controls beside the finding, badges, and chosen crops."""

from dataclasses import replace

import pytest
import torch
from cases.attributions import TWO, made

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.report.conclusion import badges, sentences
from faigfast.analysis.report.scenes import Dial, Scene, Shot, choice_text, largest_gains

CROPS = torch.tensor([0.0, 0.2])
SPACE = "\N{NO-BREAK SPACE}"


def masking(blur, noise, others=0.0):
    """Masking of two degradations with a gain of 2 dB each, by the losses of both."""
    pair = {
        "baseline": {"psnr": {"blur": 20 + CROPS, "noise": 20 + CROPS}},
        "target": {"psnr": {"blur": 22 + CROPS, "noise": 22 + CROPS}},
    }

    def one(filters, method, on_blur, on_noise):
        psnr = {"blur": 22 - on_blur + CROPS, "noise": 22 - on_noise + CROPS}
        return Measurement(filters, 0.01, 0.01, {"psnr": psnr}, method, 7)

    masked = (
        one("blur", "faig", blur, others), one("noise", "faig", others, noise),
        one("random", "random", 0.1, 0.1), one("blur", SAME_LAYERS, 0.4, 0.0),
        one("noise", SAME_LAYERS, 0.0, 0.6),
    )  # fmt: skip
    contrasts = (Contrast("blur", "blur"), Contrast("noise", "noise"))
    return Masking(pair, masked, contrasts, ("a", "b"))


def test_three_sentences_set_the_controls_beside_the_finding():
    first, second, third = (s.replace(SPACE, " ") for s in sentences(masking(1.6, 1.0, 0.2)))
    assert "top 1 % of filters, 7 for each" in first
    assert "undoes 80 ± 0 % (blur) and 50 ± 0 % (noise)" in first
    assert "anywhere undoes 5 ± 0 % (blur)" in second
    assert "in the same layers undoes 20 ± 0 % (blur) and 30 ± 0 % (noise)" in second
    assert "10 ± 0 % (noise input, blur filters)" in third


def test_a_broken_network_is_no_share():
    first, _, _ = (s.replace(SPACE, " ") for s in sentences(masking(9.0, 1.0)))
    assert "breaks the network on blur and undoes 50 ± 0 % (noise)" in first


def test_a_gain_of_nothing_is_no_share():
    one = masking(1.0, 1.0)
    one.pair_values["target"]["psnr"]["noise"] = one.pair_values["baseline"]["psnr"]["noise"]
    first, _, third = sentences(one)
    assert "finds no gain on noise" in first and "blur input, noise filters" in third


def test_without_controls_the_sentence_says_so():
    one = masking(1.0, 1.0)
    assert "No random control" in sentences(replace(one, masked=one.masked[:2]))[1]


def test_badges_judge_accuracy_and_barrier():
    kinds = {badge.text.split()[0] for badge in badges(made(TWO))}
    assert kinds  # losses are unknown there
    losses = torch.tensor([4.0, 2.0], dtype=torch.float64).expand(2, 2, 2).clone()
    line = torch.tensor([[0.5, 3.1]], dtype=torch.float64).expand(2, 2, 1, 2).clone()
    result = replace(
        made(TWO), losses=losses, line=line, points=torch.ones(2, 2, dtype=torch.int64),
        completeness=torch.full((2, 2), 0.02),
    )  # fmt: skip
    accuracy, barrier = badges(result)[:2]
    assert accuracy.sound and "2 %" in accuracy.text
    assert barrier.sound and barrier.text.startswith("barrier")
    wrong, _ = badges(replace(result, completeness=torch.full((2, 2), 0.5)))[:2]
    assert not wrong.sound and wrong.reason.startswith("completeness")


def test_of_each_photograph_the_crop_of_the_largest_gain():
    gain = torch.tensor([1.0, 3.0, 2.0, 2.5])
    assert largest_gains(gain, ["a", "a", "b", "b"], 5) == [1, 3]
    text = choice_text(gain, [1, 3], "blur")
    assert "3.0, 2.5 dB" in text and "all 4 crops is 2.1 dB" in text and "not typical" in text


@pytest.mark.parametrize(("values", "start"), [((0.0, 0.5, 1.0), 2), ((0.5, 1.5), 0)])
def test_a_dial_starts_near_the_target(values, start):
    assert Dial("t", [("a", values)], [], 4).start == start
    assert Dial("t", [("a", values), ("b", (1.0, 2.0))], [], 4).start == 2 * start


def test_the_slider_starts_with_the_target_and_the_next():
    shots = [Shot(name, "") for name in ("input", "baseline", "target", "masked")]
    assert Scene("t", shots, 4).first_pair == (2, 3)
    assert Scene("t", shots[:1], 4).first_pair == (0, 0)
