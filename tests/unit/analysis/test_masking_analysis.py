"""Masking by every method: areas, whole units, finished parts, given sets, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from cases.tables import half, value
from cases.tables import rows as rows_of
from torch import nn

import faigfast
from faigfast.analysis.baselines import rank_by
from faigfast.analysis.contrasts import Contrast, one_against_rest
from faigfast.analysis.data_frames import text_table
from faigfast.analysis.evaluation import (
    crops,
    cut_crops,
    mean_and_interval,
    measure,
    over_photographs,
)
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import SAME_LAYERS, mask, mask_sets
from faigfast.analysis.report.figures import method_curves
from faigfast.analysis.report.paper import svg
from faigfast.analysis.report.tables import area_sentences, areas, masked_networks, masked_sets
from faigfast.analysis.swap_units import (
    random_of_same_layers,
    random_swap_units,
    swap_unit_numbers,
    top_swap_units,
)
from faigfast.filters.filter_set import FilterSet


@pytest.fixture(scope="module")
def masking(study_parts):  # noqa: F811
    nets, attributed, kept, result = study_parts
    batch = {"lq": attributed.lq, "gt": attributed.gt}
    results = {"faig": result} | {
        m: rank_by(m, *nets, batch, steps=3) for m in ("gradient", "change", "input")
    }
    return mask(*nets, results, kept, fractions=(0.3, 0.1), border=2, metrics=("difference",))


def test_every_method_is_masked_and_measured(masking, study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    assert masking.methods == ("faig", "gradient", "change", "input", "random", SAME_LAYERS)
    network = result.top("noise", 0.1).swap(*nets)
    expected = measure(network, kept, border=2)["psnr"]["clean"]
    assert torch.equal(masking.find("noise", 0.1).psnr["clean"], expected)
    assert [m.fraction for m in masking.curve("change", "blur")] == [0.1, 0.3]
    assert masking.curve("change", "blur") == masking.curve("change", "noise")
    assert {m.count for m in masking.masked if m.fraction == 0.1} == {len(result.index) // 10}
    assert (masking.pair_values["target"]["difference"]["blur"] < 1e-6).all()
    changed = masking.cost(masking.curve("faig", "blur")[0], "blur", "difference")
    assert (changed >= 0).all() and float(changed.mean()) > 1e-6


def test_the_area_is_a_trapezoid(masking):
    points = masking.curve("faig", "blur")
    low, high = (masking.cost(m, "blur") for m in points)
    first, end = (m.share for m in points)
    assert (first, end) == (pytest.approx(0.1, abs=0.01), pytest.approx(0.3, abs=0.01))

    def trapezoid(low, high):
        return (low / 2 * first + (low + high) / 2 * (end - first)) / end

    torch.testing.assert_close(masking.area("faig", "blur", "blur"), trapezoid(low, high))
    gain = (masking.target["blur"] - masking.baseline["blur"]).clamp(min=0)
    low, high = low.minimum(gain), high.minimum(gain)
    inside = masking.area("faig", "blur", "blur", within_gain=True)
    torch.testing.assert_close(inside, trapezoid(low, high))
    with pytest.raises(ValueError, match="no filters of 'signed'"):
        masking.area("signed", "blur", "blur")


def test_whole_units_count_as_large_as_they_are(study_parts):  # noqa: F811
    """Layers differ in size, so areas use the masked share, up to the share all methods reach."""
    nets, attributed, kept, result = study_parts
    change = rank_by("change", *nets, {"lq": attributed.lq, "gt": attributed.gt})
    given = {"faig": result, "change": change}
    total = len(result.index)
    layer_numbers = swap_unit_numbers(nets[1], result.index, "layer")
    masking_result = mask(*nets, given, kept, fractions=(0.1, 0.8), border=2, by="layer")
    for m in masking_result.masked:
        assert m.share * total == pytest.approx(m.count, abs=0.51)
    for contrast in ("blur", "noise"):
        tops = top_swap_units(nets[1], result, Contrast(contrast, contrast), 0.8, "layer")
        assert masking_result.curve("faig", contrast)[-1].share == len(tops) / total
    curves = {m: masking_result.curve(m, "blur") for m in ("faig", "change", "random")}
    last_shares = {m: curve[-1].share for m, curve in curves.items()}
    common_share = min(last_shares.values())
    assert common_share < max(last_shares.values()), "else nothing is cut off"
    for method, curve in curves.items():
        places = [0.0, *(m.share for m in curve)]
        heights = [0.0, *(float(masking_result.cost(m, "blur").mean()) for m in curve)]
        grid = np.linspace(0, common_share, 20001)
        expected = np.trapezoid(np.interp(grid, places, heights), grid) / common_share
        area = float(masking_result.area(method, "blur", "blur").mean())
        assert area == pytest.approx(expected, rel=1e-3)
    like = result.top("blur", 0.8)
    for one in random_swap_units(nets[1], result, like, "layer", 3):
        assert len(one) <= len(like)
        in_layers = torch.isin(layer_numbers, layer_numbers[one.indices].unique())
        assert torch.equal(in_layers.nonzero().flatten(), one.indices.sort().values)


@pytest.mark.parametrize("by", ["kernel", "channel", "layer"])
def test_a_control_has_as_many_filters_in_each_layer(study_parts, by):  # noqa: F811
    nets, _, _, result = study_parts
    layers = swap_unit_numbers(nets[1], result.index, "layer")
    units = swap_unit_numbers(nets[1], result.index, by)
    top = top_swap_units(nets[1], result, Contrast("blur", "blur"), 0.3, by)
    draws, again = (random_of_same_layers(nets[1], result, top, by, 5) for _ in range(2))
    for one, other in zip(draws, again, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(layers[one.indices].bincount(), layers[top.indices].bincount())
        in_units = torch.isin(units, units[one.indices].unique())  # units are whole
        assert torch.equal(in_units.nonzero().flatten(), one.indices.sort().values)
    assert len({one.digest for one in draws}) == (1 if by == "layer" else 5)
    assert (draws[0].digest == top.digest) == (by == "layer")
    another = random_of_same_layers(nets[1], result, top, by, 5, seed=1)
    assert (another[0].digest == draws[0].digest) == (by == "layer")


def test_a_control_draws_scored_filters_alone_and_uniformly(study_parts):  # noqa: F811
    nets, _, _, result = study_parts
    layers = swap_unit_numbers(nets[1], result.index, "layer")
    result = replace(result, scored=torch.arange(len(result.index)) % 2 == 0)
    like = replace(result.top("blur", 0.1), indices=(layers == 1).nonzero()[::2].flatten()[:3])
    counts = torch.zeros(len(result.index))
    for one in random_of_same_layers(nets[1], result, like, "kernel", 400):
        assert bool(result.scored[one.indices].all()) and len(one) == 3
        counts[one.indices] += 1
    own = counts[(layers == 1) & result.scored]
    assert counts.sum() == own.sum() == 1200
    expected = 1200 / len(own)
    assert float(((own - expected) ** 2 / expected).sum()) < 2 * len(own)  # χ², p < 1 %


def test_the_control_is_measured_beside_random_filters(masking, study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    control = masking.find("noise", 0.1, SAME_LAYERS)
    top = result.top("noise", 0.1)
    sets = random_of_same_layers(nets[1], result, top, "kernel", 3)
    runs = [measure(one.swap(*nets), kept, border=2)["psnr"]["blur"] for one in sets]
    assert torch.equal(control.psnr["blur"], torch.stack(runs).mean(0))
    assert control.count == len(top) and control.share == pytest.approx(len(top) / 136)
    assert masking.find("noise", 0.1).method == "faig"
    assert [m.fraction for m in masking.curve(SAME_LAYERS, "blur")] == [0.1, 0.3]


def test_biases_go_back_with_whole_channels(study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    given = {"border": 2, "fractions": (0.3,), "by": "channel"}
    with_biases = mask(*nets, result, kept, biases=True, **given)
    without = mask(*nets, result, kept, **given)
    point = with_biases.find("blur", 0.3)
    top = top_swap_units(
        nets[1], result, Contrast("blur", "blur", ("noise", "clean")), 0.3, "channel"
    )
    expected = measure(top.swap(*nets, biases=True), kept, border=2)["psnr"]["blur"]
    assert torch.equal(point.psnr["blur"], expected)
    assert not torch.equal(point.psnr["blur"], without.find("blur", 0.3).psnr["blur"])
    channels = swap_unit_numbers(nets[1], result.index, "channel")[top.indices].unique()
    assert point.biases == len(channels) > 0
    assert without.find("blur", 0.3).biases == 0
    rows = masked_networks(with_biases)
    assert list(rows.bias_count[rows.method.isin(["baseline", "target"])].unique()) == [0]
    assert "bias_count" not in masked_networks(without)


def test_parts_with_biases_are_others(study_parts, tmp_path):  # noqa: F811
    nets, _, kept, result = study_parts
    every = {"all": FilterSet(torch.arange(len(result.index)))}
    parts = FinishedParts(tmp_path, {}, False)
    for biases in (False, True, False, True):
        values = mask_sets(*nets, every, kept, border=2, biases=biases, finished_parts=parts)
        same = torch.equal(values["all"]["psnr"]["blur"], values["baseline"]["psnr"]["blur"])
        assert same == biases


def test_whole_layers_and_random_rankings_have_no_such_control(study_parts):  # noqa: F811
    nets, attributed, kept, result = study_parts
    given = {"border": 2, "fractions": (0.3,)}
    assert SAME_LAYERS not in mask(*nets, result, kept, by="layer", **given).methods
    batch = {"lq": attributed.lq, "gt": attributed.gt}
    chance = {"random": rank_by("random", *nets, batch)}
    assert SAME_LAYERS not in mask(*nets, chance, kept, **given).methods
    change = {"change": rank_by("change", *nets, batch)}
    masked = mask(*nets, change, kept, **given)
    assert [m.filters for m in masked.masked if m.method == SAME_LAYERS] == [*RECIPES]


def test_a_target_without_gain_has_no_share_of_it(study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    settings = replace(result.setting, baseline="", target="")
    result = replace(result, setting=settings)
    same = mask(nets[1], nets[1], result, kept, fractions=(0.1,), border=2)
    assert all(math.isnan(same.lost(m, "blur")) for m in same.masked)
    assert rows_of(masked_networks(same), "undone")["value"].isna().all()


def test_tables_figures_and_sentences_hold_the_measurements(masking):
    masked = masked_networks(masking)
    measurement = masking.curve("faig", "blur")[0]
    row = {"method": "faig", "contrast": "blur", "degradation": "noise"}
    row["fraction"] = measurement.fraction
    assert len(rows_of(masked, "psnr")) == 3 * (2 + len(masking.masked))
    mean, interval = mean_and_interval(measurement.psnr["noise"])
    assert value(masked, "psnr", **row) == pytest.approx(mean)
    assert half(masked, "psnr", **row) == pytest.approx(interval)
    head, rows = text_table(masked)
    assert len(rows) == 3 * (2 + len(masking.masked))
    (line,) = [r for r in rows if r[:3] == ["blur", "faig", f"{100 * measurement.fraction:.2f}"]
               and r[head.index("input")] == "noise"]  # fmt: skip
    assert line[head.index("PSNR, dB")] == f"{mean:.2f} ± {interval:.2f}"
    area = areas(masking)
    of_change = {"method": "change", "contrast": "noise", "degradation": "noise"}
    ahead = masking.area("faig", "noise", "noise") - masking.area("change", "noise", "noise")
    mean, interval = mean_and_interval(ahead)
    assert value(area, "faig_ahead", interval="crops", **of_change) == pytest.approx(mean)
    assert half(area, "faig_ahead", interval="crops", **of_change) == pytest.approx(interval)
    mean, interval, first, count = over_photographs(ahead, masking.photographs)
    over = {"interval": "photographs", **of_change}
    assert value(area, "faig_ahead", **over) == pytest.approx(mean)
    assert value(area, "photographs_ahead", **over) == first
    assert value(area, "photograph_count", **over) == count
    head, rows = text_table(area)
    assert len(rows) == 3 * 6 and all(len(r) == len(head) for r in rows)
    said = area_sentences(masking)
    assert len(said) == 3 and all(s.startswith(("blur", "noise", "clean")) for s in said)
    for rival in ("gradient", "change", "input", "random", SAME_LAYERS):
        assert all(rival in s for s in said)
    assert svg(method_curves(masking)).startswith("<svg")


def test_what_is_finished_is_not_computed_again(study_parts, tmp_path, monkeypatch):  # noqa: F811
    nets, _, kept, result = study_parts
    calls = []
    original = FilterSet.swap

    def counted(self, *args, **options):
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    def run(finished_parts):
        return mask(
            *nets, result, kept, fractions=(0.1, 0.2), border=2, finished_parts=finished_parts
        )

    monkeypatch.setattr(FilterSet, "swap", counted)
    with pytest.raises(KeyboardInterrupt):
        run(FinishedParts(tmp_path, {"a": 1}))
    before = len(calls)
    networks = 2 * (3 + 3 + 3 * 3)  # FAIG's, random, and random ones of the layers of FAIG's
    resumed = run(FinishedParts(tmp_path, {"a": 1}))
    assert len(calls) - before == networks - 3  # three were finished before
    again = run(FinishedParts(tmp_path, {"a": 1}))
    assert len(calls) - before == networks - 3
    monkeypatch.undo()
    uninterrupted = run(None)
    for one, other, third in zip(resumed.masked, uninterrupted.masked, again.masked, strict=True):
        for name in RECIPES:
            assert torch.equal(one.psnr[name], other.psnr[name])
            assert torch.equal(one.psnr[name], third.psnr[name])
    with pytest.raises(ValueError, match="another run: a was 1 and is 2"):
        FinishedParts(tmp_path, {"a": 2})
    known = sorted((tmp_path / "parts").iterdir())
    other = FinishedParts(tmp_path, {"a": 2}, overwrite=True)
    assert sorted((tmp_path / "parts").iterdir()) == known  # files change only at the first part
    other.tensors("x", lambda: {"y": torch.ones(2)})
    assert len(list((tmp_path / "parts").glob("*.part"))) == 1
    with pytest.raises(ValueError, match="another run: a was 2 and is 1"):
        FinishedParts(tmp_path, {"a": 1})


def test_a_damaged_part_is_computed_again(tmp_path):
    finished_parts = FinishedParts(tmp_path, {})
    finished_parts.tensors("x", lambda: {"y": torch.ones(2)})
    (file,) = (tmp_path / "parts").glob("*.part")
    file.write_bytes(b"damaged")
    assert torch.equal(
        finished_parts.tensors("x", lambda: {"y": torch.zeros(2)})["y"], torch.zeros(2)
    )
    assert finished_parts.tensors("x", lambda: {"z": torch.ones(1)}, ["z"]).keys() == {"z"}


def test_given_sets_are_measured_or_refused(study_parts, tmp_path):  # noqa: F811
    nets, _, kept, result = study_parts
    top = result.top("blur", 0.1)
    (tmp_path / "theirs.txt").write_text("\n".join(map(str, top.indices.tolist())))
    theirs = FilterSet.load(tmp_path / "theirs.txt")
    values = mask_sets(*nets, {"ours": top, "theirs": theirs}, kept, border=2)
    assert torch.equal(values["ours"]["psnr"]["blur"], values["theirs"]["psnr"]["blur"])
    assert set(masked_sets(values).network) == {"baseline", "target", "ours", "theirs"}
    far = FilterSet(torch.tensor([10**6]))
    with pytest.raises(ValueError, match="set 'far': filter 1000000 does not exist"):
        mask_sets(*nets, {"far": far}, kept, border=2)
    wrong = FilterSet(top.indices, top.total, "0123456789abcdef")
    with pytest.raises(ValueError, match="set 'wrong': the filters belong to the network 0123"):
        mask_sets(*nets, {"wrong": wrong}, kept, border=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fractions": ()}, "fractions are empty"),
        ({"fractions": (0.1, 1.5)}, "fraction is 1.5"),
        ({"border": 12}, "border 12 leaves nothing"),
        ({"by": "pixel"}, "by is 'pixel'"),
        ({"metrics": ("lpips",)}, "metric is 'lpips'"),
        ({"contrasts": ()}, "contrasts are empty"),
    ],
)
def test_bad_masking(study_parts, change, words):  # noqa: F811
    nets, _, kept, result = study_parts
    with pytest.raises(ValueError, match=words):
        mask(*nets, result, kept, **{"border": 2, "fractions": (0.1,), **change})


def test_a_result_of_another_network_is_refused(study_parts):  # noqa: F811
    nets, _, kept, _ = study_parts
    x, gt = torch.rand(1, 3, 6, 6), torch.rand(1, 3, 6, 6)
    small = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2)]
    other = faigfast.attribute(*small, (x, gt), steps=2)
    with pytest.raises(ValueError, match="the attribution is of the network"):
        mask(*nets, other, kept, border=2)


def test_photographs_of_other_degradations_are_refused():
    image = photographs()["one"]
    low = RECIPES["blur"](image[None])[0]
    with pytest.raises(ValueError, match="'b' has the degradations \\['noise'\\]"):
        cut_crops([("a", image, {"blur": low}), ("b", image, {"noise": low})], 24, 2)
    both = crops({"a": image}, RECIPES, 24)
    one = cut_crops([("a", image, {n: d(image[None])[0] for n, d in RECIPES.items()})], 24, 2)
    assert both.names == one.names and both.photographs == ("a",) * 6
    assert torch.equal(both.lq["noise"], one.lq["noise"])
    assert one_against_rest(tuple(one.lq))[1].name == "noise"
