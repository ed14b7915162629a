"""Dials chosen by measured effect, and their curves beside interpolation of all weights."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from cases.analysis import study_parts  # noqa: F401

import faigfast
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.dial import choose, interpolated, make_dials, separate_rankings
from faigfast.analysis.dial_result import (
    DIAL,
    INTERPOLATION,
    OWN_KNOB,
    Candidate,
    compare_on_photographs,
)
from faigfast.analysis.evaluation import crops, measure
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.undone import BROKEN, NO_GAIN, Undone
from faigfast.data import Degradation, photographs
from faigfast.filters.filter_set import FilterSet
from faigfast.zoo.pairs import shipped_pair


@pytest.fixture(scope="module")
def material():
    """A shipped pair, its result, selection crops and measured crops of two photographs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pair = shipped_pair()
    images = {
        name: image[:, 100:148, 180:276]
        for name, image in photographs(("camera.png", "chelsea.png")).items()
    }
    recipes = {
        "blur": Degradation(blur=2.0),
        "noise": Degradation(noise=0.1),
        "clean": Degradation(),
    }
    data = crops(images, recipes, 24)  # 8 crops of each
    parts = [data.part(slice(n, None, 3)) for n in range(3)]
    result = faigfast.attribute(*pair, {"lq": parts[0].lq, "gt": parts[0].gt}, steps=2)
    yield pair, result, *parts[1:]
    torch.set_num_threads(threads)


def dials_of(material, **options):
    pair, result, selection, measured = material
    given = {"border": 2, "metrics": ("psnr",), "fractions": (0.005, 0.01), "undo": 0.1, **options}
    return make_dials(*pair, result, selection, measured, **given)


@pytest.fixture(scope="module")
def dials(material):
    return dials_of(material)


def equal(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_each_degradation_has_a_dial_of_its_own_filters(material, dials):
    assert [one.name for one in dials] == ["blur", "noise"]
    sets = [set(one.chosen.filters.indices.tolist()) for one in dials]
    assert not sets[0] & sets[1]
    pair, *_ = material
    blur, noise = (one.dial for one in dials)
    both = noise.apply(blur.apply(pair[1], 0), 0.5)
    assert equal(both, blur.apply(noise.apply(pair[1], 0.5), 0))


def test_curves_are_measurements(material, dials):
    pair, _, _, measured = material
    for one in dials:
        assert one.strengths == [0, 0.25, 0.5, 0.75, 1]
        expected = measure(one.dial.apply(pair[1], 0.25), measured, border=2)["psnr"]
        assert torch.equal(one.psnr(DIAL, 0.25, "clean"), expected["clean"])
        for way, net in ((DIAL, pair[1]), (INTERPOLATION, pair[1]), (SAME_LAYERS, pair[1])):
            expected = measure(net, measured, border=2)["psnr"]
            assert torch.equal(one.psnr(way, 1.0, one.name), expected[one.name])
        expected = measure(pair[0], measured, border=2)["psnr"]
        assert torch.equal(one.psnr(INTERPOLATION, 0.0, one.name), expected[one.name])
        assert one.undone(INTERPOLATION).share == pytest.approx(1)
        assert OWN_KNOB not in one.curves


def test_frames_and_sentences(dials):
    for one in dials:
        rows = one.to_frame()
        assert len(rows) == (5 + 5 + 2) * 3 * 2  # PSNR, and its change
        assert set(rows.metric) == {"psnr", "psnr_change"}
        at_one = rows[(rows.strength == 1) & (rows.metric == "psnr_change")]
        assert (at_one["value"] == 0).all()
        tried = one.sets_frame()
        tried = tried[tried.metric == "undone"]
        assert tried.chosen.sum() == 1
        assert list(tried.filter_count) == sorted(tried.filter_count)
        text = " ".join(one.sentences())
        assert f"{len(one.dial)} of {one.dial.total} filters" in text
        assert "Strength 0 " in text and "of 2 photographs with" in text
        assert "Interpolation of all weights at strength 0" in text


def test_an_own_knob_is_measured_beside(material):
    pair, *_ = material

    def knob(strength):
        return pair[1] if strength == 1 else pair[0]

    one, *_ = dials_of(material, own_knob=knob, strengths=(0.5,))
    assert one.strengths == [0, 0.5, 1]
    assert torch.equal(one.psnr(OWN_KNOB, 0.5, "blur"), one.psnr(INTERPOLATION, 0.0, "blur"))
    assert any("Own knob at strength 0" in sentence for sentence in one.sentences())


def test_finished_networks_are_not_measured_again(material, tmp_path, monkeypatch):
    one = dials_of(material, finished_parts=FinishedParts(tmp_path, {"run": 1}))
    monkeypatch.setattr("faigfast.analysis.measure.measure", None)
    other = dials_of(material, finished_parts=FinishedParts(tmp_path, {"run": 1}))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.psnr(DIAL, 0.5, "noise"), b.psnr(DIAL, 0.5, "noise"))


def candidate(share, clean=0.0, outcome=""):
    return Candidate(
        0.1,
        FilterSet(torch.tensor([0])),
        Undone(math.nan if outcome else share, 0.0, outcome),
        clean,
    )


def test_the_smallest_set_that_undoes_enough_is_chosen():
    sets = [candidate(0.3), candidate(0.65), candidate(0.9)]
    assert choose(sets, 0.6, "noise") is sets[1]
    assert choose(sets, 0.95, "noise") is sets[2]
    costly = [candidate(0.7, clean=-0.5), candidate(0.65, clean=0.2)]
    assert choose(costly, 0.6, "noise") is costly[1]
    assert choose(costly[:1], 0.6, "noise") is costly[0]
    broken = [candidate(0.2), candidate(0, outcome=BROKEN)]
    assert choose(broken, 0.6, "noise") is broken[0]
    with pytest.raises(ValueError, match="every set of filters of 'noise' breaks the network"):
        choose(broken[1:], 0.6, "noise")
    with pytest.raises(ValueError, match=r"gains less than 0\.1 dB over the baseline on 'noise'"):
        choose([candidate(0, outcome=NO_GAIN)], 0.6, "noise")


def test_a_set_that_does_not_reach_the_share_is_said(material):
    for one in dials_of(material, fractions=(0.002,), undo=1.0):
        assert any("no share of the filters undoes 100 %" in s for s in one.sentences())


def test_separate_rankings_share_no_filter(study_parts):  # noqa: F811
    *_, result = study_parts
    contrasts = [Contrast("a", "blur"), Contrast("b", "noise")]
    rankings = separate_rankings(result, contrasts)
    one, other = (rankings[name].indices for name in "ab")
    assert not torch.isin(one, other).any()
    scores = contrasts[0].scores(result)[one]
    assert (scores.diff() <= 0).all() and (scores > 0).all()
    twice = [Contrast("a", "blur"), Contrast("b", "blur")]
    with pytest.raises(ValueError, match="contrast 'b' has no filter with a positive score"):
        separate_rankings(result, twice)


def test_interpolation_is_exact_at_its_ends(study_parts):  # noqa: F811
    (one, other), *_ = study_parts
    before = copy.deepcopy(other.state_dict())
    assert equal(interpolated(one, other, 0), one) and equal(interpolated(one, other, 1), other)
    half = interpolated(one, other, 0.5)
    for key, value in half.state_dict().items():
        torch.testing.assert_close(value, (one.state_dict()[key] + other.state_dict()[key]) / 2)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_shares_are_of_photographs():
    names = ("a", "a", "a", "b")  # each photograph counts the same
    base, full = torch.zeros(4), torch.tensor([1.0, 1, 1, 1])
    now = torch.tensor([1.0, 1, 1, 0])
    assert compare_on_photographs(now, base, full, names).share == pytest.approx(0.5)
    alone = compare_on_photographs(now[:3], base[:3], full[:3], names[:3])
    assert alone.share == 0 and math.isnan(alone.half)
    assert compare_on_photographs(now, full, full, names).outcome == BROKEN
    assert compare_on_photographs(full, full, full, names).outcome == NO_GAIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": ()}, r"fractions are \[\]; expected shares"),
        ({"fractions": (0, 0.1)}, "fractions are .*; expected shares"),
        ({"fractions": (1.5,)}, "fractions are .*; expected shares"),
        ({"undo": 0}, "undo is 0; expected a share"),
        ({"undo": float("nan")}, "undo is nan; expected a share"),
        ({"strengths": (float("inf"),)}, "strength of 'strengths' is inf"),
        ({"contrasts": [Contrast("clean", "clean")]}, "a contrast is of 'clean'"),
        ({"contrasts": [Contrast("fog", "fog")]}, "names the degradation 'fog'"),
        ({"contrasts": []}, "contrasts are empty"),
        ({"clean": "sharp"}, "selection crops have the degradations .*; expected 'sharp' too"),
        ({"metrics": ("beauty",)}, "metric is 'beauty'"),
    ],
)
def test_bad_arguments(material, options, message):
    with pytest.raises(ValueError, match=message):
        dials_of(material, **options)


def test_crops_without_clean_input_are_refused(material):
    pair, result, selection, measured = material
    lq = {name: x for name, x in measured.lq.items() if name != "clean"}
    with pytest.raises(ValueError, match="measured crops have the degradations blur, noise"):
        make_dials(*pair, result, selection, replace(measured, lq=lq), border=2)


def test_another_pair_is_refused(material):
    (one, other), result, selection, measured = material
    with pytest.raises(ValueError, match="network"):
        make_dials(other, one, result, selection, measured, border=2)
