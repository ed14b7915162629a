import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional as F

import faigfast
from faigfast.analysis.baselines import rank_by
from faigfast.analysis.contrasts import Contrast, check_contrasts, one_against_rest, overlap
from faigfast.analysis.data_frames import text_table
from faigfast.analysis.evaluation import (
    crops,
    cut_crops,
    evaluate,
    measure,
    over_photographs,
    restore,
)
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import mask, mask_sets
from faigfast.analysis.metrics import gradient_map, output_difference, ssim
from faigfast.analysis.report.figures import method_curves, svg
from faigfast.analysis.report.tables import area_sentences, areas, masked_networks, masked_sets
from faigfast.analysis.swap_units import (
    output_channels,
    random_swap_units,
    swap_unit_numbers,
    top_swap_units,
)
from faigfast.data.degradations import round_to_8_bit
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex


def noisy_pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    gt = round_to_8_bit(F.avg_pool2d(torch.rand(2, 3, 30, 37, generator=generator), 3, 1, 1))
    return round_to_8_bit(gt + 0.05 * torch.randn(gt.shape, generator=generator)), gt


# Metrics


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_ssim_is_skimages(border, channel):
    output, gt = noisy_pair()
    inner = (slice(border, 30 - border), slice(border, 37 - border))
    for n, value in enumerate(ssim(output, gt, border=border, channel=channel).tolist()):
        a, b = (x[n].permute(1, 2, 0).double().numpy()[inner] for x in (output, gt))
        if channel == "y":
            a, b = (rgb2ycbcr(x)[..., :1] / 255 for x in (a, b))
        expected = structural_similarity(
            a, b, data_range=1.0, gaussian_weights=True, use_sample_covariance=False, channel_axis=2
        )
        assert value == pytest.approx(expected, abs=2e-4)


def test_ssim_of_equal_images_is_one_and_small_ones_are_refused():
    _, gt = noisy_pair()
    assert ssim(gt, gt).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="border 10 leaves \\[10, 17\\] of an image \\[30, 37\\]"):
        ssim(gt, gt, border=10)


def authors_map(image):
    """The published steps on one RGB image [3, H, W], written out."""
    bgr = np.round(image.flip(0).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    x = np.repeat(bgr.astype(np.float32) / 255, 3, axis=2)  # of three channels, not of one
    x = torch.from_numpy(x).permute(2, 0, 1)[None, :3]
    v = torch.tensor([[0.0, -1, 0], [0, 0, 0], [0, 1, 0]]).expand(3, 1, 3, 3)
    maps = [F.conv2d(x, k, padding=1, groups=3) for k in (v, v.transpose(2, 3).contiguous())]
    return (maps[0] ** 2 + maps[1] ** 2 + 1e-6).sqrt()


def test_output_difference_in_the_authors_form():
    one, other = noisy_pair()
    for n, value in enumerate(output_difference(one, other, form="authors").tolist()):
        a, b = authors_map(one[n]), authors_map(other[n])
        assert value == pytest.approx(1000 * float(((a - b) ** 2).mean()), rel=1e-5)


def test_output_difference_on_gray():
    one, other = noisy_pair()
    gray = one.clone()
    gray[:] = (one * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    rounded = round_to_8_bit(gray)
    # Of an image that is gray already both forms are one.
    torch.testing.assert_close(gradient_map(rounded), gradient_map(rounded, "authors"))
    assert (output_difference(one, one) == 0).all()
    assert (output_difference(one, other) > 0).all()
    with pytest.raises(ValueError, match="form is 'grey'"):
        output_difference(one, other, form="grey")


def test_measure_restores_once_and_agrees_with_evaluate(study_parts):  # noqa: F811
    (_, target), _, kept, _ = study_parts
    calls = []
    counting = copy.deepcopy(target)
    counting.register_forward_hook(lambda *_: calls.append(1))
    reference = {name: restore(target, lq) for name, lq in kept.lq.items()}
    values = measure(
        counting, kept, border=2, metrics=("psnr", "ssim", "difference"), reference=reference
    )
    assert len(calls) == len(kept.lq) * -(-len(kept.names) // 8)
    for name, expected in evaluate(target, kept, border=2).items():
        assert torch.equal(values["psnr"][name], expected)
        assert (values["difference"][name] < 1e-6).all()
    with pytest.raises(ValueError, match="metric is 'lpips'"):
        measure(target, kept, border=2, metrics=("lpips",))


def test_intervals_over_photographs_are_students():
    values = torch.tensor([1.0, 3.0, 4.0, 6.0, 0.0])
    mean, half, positive, count = over_photographs(values, ["a", "a", "b", "b", "c"])
    means = torch.tensor([2.0, 5.0, 0.0])
    assert mean == pytest.approx(float(means.mean()))
    assert half == pytest.approx(4.302653 * float(means.std()) / 3**0.5)
    assert (positive, count) == (2, 3)
    assert np.isnan(over_photographs(values, ["a"] * 5)[1])


# Contrasts and units


def test_contrasts_are_read_and_checked(study_parts):  # noqa: F811
    *_, result = study_parts
    assert Contrast.parse("blur:") == Contrast("blur:", "blur", ())
    named = Contrast.parse("mine = blur : noise, clean".replace(" = ", "=").replace(" : ", ":"))
    assert named == Contrast("mine", "blur", ("noise", "clean"))
    assert torch.equal(named.scores(result), result.contrast("blur"))
    assert torch.equal(Contrast.parse("blur:").scores(result), result.mean("blur"))
    for text, words in (
        ("fog", "names the degradation 'fog'"),
        ("blur:fog", "names the degradation 'fog'"),
        ("blur:blur", "against itself"),
    ):
        with pytest.raises(ValueError, match=words):
            check_contrasts([Contrast.parse(text)], result.degradations)
    with pytest.raises(ValueError, match="given twice"):
        check_contrasts([Contrast.parse("blur")] * 2, result.degradations)
    with pytest.raises(ValueError, match="expected \\[NAME=\\]"):
        Contrast.parse("a:b:c")


def test_overlap_of_sets(study_parts):  # noqa: F811
    *_, result = study_parts
    one = result.top("blur", 0.1)
    half = one[: len(one) // 2]
    shares = overlap({"one": one, "half": half})
    expected = [[1.0, len(half) / len(one)], [1.0, 1.0]]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))
    other = FilterSet(one.indices, one.total, "0" * 16)
    with pytest.raises(ValueError, match="belong to the networks"):
        overlap({"one": one, "other": other})


@pytest.mark.parametrize("groups", [1, 2])
def test_output_channels_of_every_kind_of_layer(groups):
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=groups),
        nn.ConvTranspose2d(6, 4, 3, groups=groups),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 2, 1)),
    )
    index = FilterIndex.of(net)
    channels = output_channels(net, index)
    x = torch.rand(1, 4, 7, 7)
    before = [x]
    for layer in net:
        before.append(layer(before[-1]))
    for n, key in enumerate(list(channels)[:2]):
        for flat, expected in enumerate(channels[key].tolist()):
            layer = copy.deepcopy(net[n])
            row, column = divmod(flat, layer.weight.shape[1])
            with torch.no_grad():
                layer.weight[row, column] += 1
            moved = (layer(before[n]) - before[n + 1]).abs().amax((0, 2, 3)) > 1e-6
            assert moved.nonzero().flatten().tolist() == [expected]
    assert len(channels) == 3 and len(channels[index.layers[2]]) == 8


def test_units_are_whole_and_best_first(study_parts):  # noqa: F811
    (_, target), *_, result = study_parts
    blur = Contrast("blur", "blur")
    kernels = top_swap_units(target, result, blur, 0.2, "kernel")
    assert torch.equal(kernels.indices, result.top("blur", 0.2).indices)
    score = result.contrast("blur")
    for by in ("channel", "layer"):
        unit = swap_unit_numbers(target, result.index, by)
        chosen = top_swap_units(target, result, blur, 0.2, by)
        assert len(chosen) <= len(kernels) or len(unit[chosen.indices].unique()) == 1
        picked = unit[chosen.indices].unique_consecutive()
        assert len(picked.unique()) == len(picked)
        for number in picked.tolist():
            assert torch.isin((unit == number).nonzero().flatten(), chosen.indices).all()
        means = torch.stack([score[unit == n].mean() for n in range(int(unit.max()) + 1)])
        assert torch.equal(picked, means.argsort(descending=True, stable=True)[: len(picked)])
    assert len(swap_unit_numbers(target, result.index, "layer").unique()) == len(
        result.index.layers
    )
    with pytest.raises(ValueError, match="by is 'pixel'"):
        swap_unit_numbers(target, result.index, "pixel")


# Masking


@pytest.fixture(scope="module")
def masking(study_parts):  # noqa: F811
    nets, found, kept, result = study_parts
    batch = {"lq": found.lq, "gt": found.gt}
    results = {"faig": result} | {
        m: rank_by(m, *nets, batch, steps=3) for m in ("gradient", "change", "input")
    }
    return mask(*nets, results, kept, fractions=(0.3, 0.1), border=2, metrics=("difference",))


def test_every_method_is_masked_and_measured(masking, study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    assert masking.methods == ("faig", "gradient", "change", "input", "random")
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
    """Layers differ in size: areas take the share that is masked, up to what all methods reach."""
    nets, found, kept, result = study_parts
    change = rank_by("change", *nets, {"lq": found.lq, "gt": found.gt})
    given = {"faig": result, "change": change}
    total = len(result.index)
    layers = swap_unit_numbers(nets[1], result.index, "layer")
    found = mask(*nets, given, kept, fractions=(0.1, 0.8), border=2, by="layer")
    for m in found.masked:
        assert m.share * total == pytest.approx(m.count, abs=0.51)
    for contrast in ("blur", "noise"):
        tops = top_swap_units(nets[1], result, Contrast(contrast, contrast), 0.8, "layer")
        assert found.curve("faig", contrast)[-1].share == len(tops) / total
    curves = {m: found.curve(m, "blur") for m in ("faig", "change", "random")}
    ends = {m: curve[-1].share for m, curve in curves.items()}
    end = min(ends.values())
    assert end < max(ends.values()), "else nothing is cut off"
    for method, curve in curves.items():
        places = [0.0, *(m.share for m in curve)]
        heights = [0.0, *(float(found.cost(m, "blur").mean()) for m in curve)]
        grid = np.linspace(0, end, 20001)
        expected = np.trapezoid(np.interp(grid, places, heights), grid) / end
        area = float(found.area(method, "blur", "blur").mean())
        assert area == pytest.approx(expected, rel=1e-3)
    like = result.top("blur", 0.8)
    for one in random_swap_units(nets[1], result, like, "layer", 3):
        assert len(one) <= len(like)
        whole = torch.isin(layers, layers[one.indices].unique())
        assert torch.equal(whole.nonzero().flatten(), one.indices.sort().values)


def test_a_target_without_gain_has_no_share_of_it(study_parts):  # noqa: F811
    nets, _, kept, result = study_parts
    setting = replace(result.setting, baseline="", target="")
    result = replace(result, setting=setting)
    same = mask(nets[1], nets[1], result, kept, fractions=(0.1,), border=2)
    assert all(math.isnan(same.lost(m, "blur")) for m in same.masked)
    assert masked_networks(same)["undone, %"].isna().all()


def test_tables_figures_and_sentences_hold_the_measurements(masking):
    table = masked_networks(masking)
    assert len(table) == 3 * (2 + len(masking.masked))
    row = table[(table.method == "faig") & (table.filters == "blur") & (table.input == "noise")]
    expected = float(masking.curve("faig", "blur")[0].psnr["noise"].mean())
    assert row["PSNR, dB"].iloc[0] == pytest.approx(expected)
    area = areas(masking)
    assert len(area) == 3 * 5
    line = area[(area.method == "change") & (area.filters == "noise")].iloc[0]
    ahead = masking.area("faig", "noise", "noise") - masking.area("change", "noise", "noise")
    assert line["FAIG ahead"] == pytest.approx(float(ahead.mean()))
    head, rows = text_table(area)
    assert all(len(r) == len(head) for r in rows)
    said = area_sentences(masking)
    assert len(said) == 3 and all(s.startswith(("blur", "noise", "clean")) for s in said)
    for rival in ("gradient", "change", "input", "random"):
        assert all(rival in s for s in said)
    assert svg(method_curves(masking)).startswith("<svg")


def test_what_is_finished_is_not_computed_again(study_parts, tmp_path, monkeypatch):  # noqa: F811
    nets, _, kept, result = study_parts
    calls = []
    original = FilterSet.swap

    def counted(self, *args):
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args)

    def run(finished_parts):
        return mask(
            *nets, result, kept, fractions=(0.1, 0.2), border=2, finished_parts=finished_parts
        )

    monkeypatch.setattr(FilterSet, "swap", counted)
    with pytest.raises(KeyboardInterrupt):
        run(FinishedParts(tmp_path, {"a": 1}))
    before = len(calls)
    resumed = run(FinishedParts(tmp_path, {"a": 1}))
    assert len(calls) - before == 2 * (3 + 3) - 3  # without the three that were finished
    again = run(FinishedParts(tmp_path, {"a": 1}))
    assert len(calls) - before == 2 * (3 + 3) - 3
    monkeypatch.undo()
    whole = run(None)
    for one, other, third in zip(resumed.masked, whole.masked, again.masked, strict=True):
        for name in RECIPES:
            assert torch.equal(one.psnr[name], other.psnr[name])
            assert torch.equal(one.psnr[name], third.psnr[name])
    with pytest.raises(ValueError, match="another run: a was 1 and is 2"):
        FinishedParts(tmp_path, {"a": 2})
    known = sorted((tmp_path / "parts").iterdir())
    other = FinishedParts(tmp_path, {"a": 2}, overwrite=True)
    assert sorted((tmp_path / "parts").iterdir()) == known  # nothing is done before the first part
    other.tensors("x", lambda: {"y": torch.ones(2)})
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 1
    with pytest.raises(ValueError, match="another run: a was 2 and is 1"):
        FinishedParts(tmp_path, {"a": 1})


def test_a_damaged_part_is_computed_again(tmp_path):
    finished_parts = FinishedParts(tmp_path, {})
    finished_parts.tensors("x", lambda: {"y": torch.ones(2)})
    (file,) = (tmp_path / "parts").glob("*.safetensors")
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
