"""Locations, contrasts of many degradations, distribution and pruning."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from cases.tables import rows as rows_of
from cases.tables import value
from torch import nn
from torch.nn.utils import prune

import faigfast
from faigfast.analysis.contrasts import (
    Contrast,
    agreement,
    level_contrasts,
    levels,
    overlap,
    overlap_data_frame,
)
from faigfast.analysis.data_frames import text_table
from faigfast.analysis.distribution import (
    KernelChange,
    changes,
    distribution,
    layer_numbers,
    top_kernels,
)
from faigfast.analysis.evaluation import crops, measure
from faigfast.analysis.locations import (
    EXPERIMENTS,
    experiment,
    locations,
    locations_data_frame,
    other_places,
    shuffled,
    with_weights_moved,
)
from faigfast.analysis.pruning import (
    FaigImportance,
    channel_importance,
    filter_importance,
    weight_importance,
)
from faigfast.analysis.report.figures import location_bars
from faigfast.analysis.report.filter_figures import (
    kernel_changes_figure,
    layer_distribution,
    matrix,
)
from faigfast.analysis.report.paper import svg
from faigfast.data import Degradation
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.result import ARRAYS
from faigfast.zoo.pairs import shipped_pair


@pytest.fixture(scope="module")
def top(study_parts):  # noqa: F811
    return study_parts[3].top("blur", 0.2)


def kernels(net, index):
    """All kernels [F, 9] in the order of the index."""
    state = net.state_dict()
    return torch.cat([state[layer].flatten(2).flatten(0, 1) for layer in index.layers])


def test_other_places_are_as_many_in_each_layer(study_parts, top):  # noqa: F811
    index = study_parts[3].index
    other = other_places(top, index, seed=1)
    layer_of = layer_numbers(index)
    counts = [layer_of[s.indices].bincount(minlength=9).tolist() for s in (top, other)]
    assert counts[0] == counts[1] and len(other) == len(top)
    full = {n for n, c in enumerate(counts[0]) if 2 * c <= int((layer_of == n).sum())}
    common = set(top.indices.tolist()) & set(other.indices.tolist())
    assert not {n for n in common if int(layer_of[n]) in full}
    assert torch.equal(other.indices, other_places(top, index, seed=1).indices)
    everything = FilterSet(torch.arange(len(index)), len(index), index.fingerprint)
    assert len(other_places(everything, index)) == len(index)


@pytest.mark.parametrize("within", [False, True])
def test_shuffling_keeps_the_weights_and_the_places(study_parts, top, within):  # noqa: F811
    (_, target), *_, result = study_parts
    index = result.index
    net = shuffled(target, top, seed=2, within_outputs=within)
    before, after = kernels(target, index), kernels(net, index)
    changed = (before != after).any(1).nonzero().flatten()
    assert len(changed) > 3 and torch.isin(changed, top.indices).all()
    group = layer_numbers(index)
    if within:  # an output channel keeps its kernels
        rows = torch.cat([torch.arange(s[0]).repeat_interleave(s[1]) for s in index.shapes])
        group = group * 1000 + rows
    for unit in group[top.indices].unique().tolist():
        places = (group == unit).nonzero().flatten()
        pair = (x[places].sum(1).sort().values for x in (before, after))
        assert torch.equal(*pair)
    state = net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items() if "bias" in k)


def test_moving_masks_here_and_writes_there(study_parts, top):  # noqa: F811
    (baseline, target), *_, result = study_parts
    index = result.index
    places = other_places(top, index, seed=3)
    net = with_weights_moved(baseline, target, top, places)
    low, high, now = (kernels(n, index) for n in (baseline, target, net))
    here = top.indices[~torch.isin(top.indices, places.indices)]
    assert torch.equal(now[here], low[here])
    for layer in layer_numbers(index)[top.indices].unique().tolist():
        a = places.indices[layer_numbers(index)[places.indices] == layer]
        b = top.indices[layer_numbers(index)[top.indices] == layer]
        assert torch.equal(now[a].sum(1).sort().values, high[b].sum(1).sort().values)


def test_a_graft_has_the_targets_filters_and_nothing_else_of_it(study_parts, top):  # noqa: F811
    (baseline, target), *_, result = study_parts
    net = experiment("grafted", baseline, target, top, 0)
    low, high, now = (kernels(n, result.index) for n in (baseline, target, net))
    expected = low.clone()
    expected[top.indices] = high[top.indices]
    assert torch.equal(now, expected)
    assert torch.equal(net.conv_first.bias, baseline.conv_first.bias)


def test_the_table_of_experiments(study_parts, top):  # noqa: F811
    nets, _, kept, _ = study_parts
    (part,) = locations(*nets, {"mine": top}, {"mine": "blur"}, kept, border=2, draws=2)
    assert list(part.values) == ["baseline", "target", *EXPERIMENTS]
    expected = measure(top.swap(*nets), kept, border=2)["psnr"]["noise"]
    assert torch.equal(part.values["masked"]["psnr"]["noise"], expected)
    runs = [
        measure(experiment("weights moved", *nets, top, seed), kept, border=2)["psnr"]["blur"]
        for seed in (0, 1)
    ]
    moved_psnr = part.values["weights moved"]["psnr"]["blur"]
    torch.testing.assert_close(moved_psnr, torch.stack(runs).mean(0))
    for name in RECIPES:
        base, full = (float(part.values[e]["psnr"][name].mean()) for e in ("baseline", "target"))
        expected_shares = (0.0, 1.0) if full > base else (math.nan, math.nan)
        kept_shares = part.kept("baseline", name), part.kept("target", name)
        assert kept_shares == pytest.approx(expected_shares, nan_ok=True)
    data = locations_data_frame([part])
    assert len(data) == (2 + len(EXPERIMENTS)) * len(RECIPES) * 3
    assert len(text_table(data)[1]) == 2 + len(EXPERIMENTS)
    assert svg(location_bars([part])).startswith("<svg")


def test_a_file_of_the_authors_tells_no_total(study_parts, top):  # noqa: F811
    nets, _, kept, _ = study_parts
    given = {"degradations": {"mine": "blur"}, "data": kept, "border": 2, "draws": 1}
    theirs = FilterSet(top.indices)
    (one,), (other,) = (locations(*nets, {"mine": sets}, **given) for sets in (top, theirs))
    for name, values in one.values.items():
        assert torch.equal(values["psnr"]["blur"], other.values[name]["psnr"]["blur"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experiments": ("turned",)}, "experiment is 'turned'"),
        ({"draws": 0}, "draws is 0"),
        ({"degradations": {"mine": "fog"}}, "'mine' serve 'fog'"),
        ({"sets": {"mine": FilterSet(torch.tensor([10**6]))}}, "1000000 does not exist"),
    ],
)
def test_bad_locations(study_parts, top, change, words):  # noqa: F811
    nets, _, kept, _ = study_parts
    given = {"sets": {"mine": top}, "degradations": {"mine": "blur"}, "data": kept, "border": 2}
    with pytest.raises(ValueError, match=words):
        locations(*nets, **{**given, **change})


@pytest.fixture(scope="module")
def many(study_parts):  # noqa: F811
    nets, *_ = study_parts
    recipes = {
        "blur-1": Degradation(blur=1.0),
        "blur-2": Degradation(blur=2.0),
        "blur-3": Degradation(blur=3.0),
        "noise-0.1": Degradation(noise=0.1),
        "clean": Degradation(),
    }
    data = crops(photographs(), recipes, 24).part(slice(0, None, 4))
    return faigfast.attribute(*nets, {"lq": data.lq, "gt": data.gt}, steps=2)


def test_levels_are_contrasted_with_other_degradations_alone(many):
    contrasts = {c.name: c for c in level_contrasts(many.degradations)}
    assert contrasts["blur-2"].against == ("noise-0.1", "clean")
    assert contrasts["clean"].against == ("blur-1", "blur-2", "blur-3", "noise-0.1")
    pairs = levels(many, 0.1)
    assert pairs[["level", "other_level"]].values.tolist() == [[1, 2], [1, 3], [2, 3]]
    a, b = (contrasts[name].top(many, 0.1) for name in ("blur-1", "blur-3"))
    common = len(set(a.indices.tolist()) & set(b.indices.tolist())) / len(a)
    assert pairs["common_fraction"][1] == pytest.approx(common)
    names = (*ARRAYS, "line")
    clean = {name: getattr(many, name)[-1:] for name in names if name != "scored"}
    with pytest.raises(ValueError, match="expected two levels of one"):
        levels(replace(many, by_degradation={"a": many.scores("clean")}, **clean), 0.1)


def test_overlap_of_many_contrasts(many):
    sets = {name: many.top(name, 0.1) for name in many.degradations}
    scores = {name: many.contrast(name) for name in many.degradations}
    overlaps = overlap_data_frame(sets, scores)
    assert len(overlaps) == 10
    expected = torch.corrcoef(torch.stack([scores["blur-1"], scores["clean"]]))[0, 1]
    row = overlaps[(overlaps.contrast == "blur-1") & (overlaps.other_contrast == "clean")].iloc[0]
    assert row["correlation"] == pytest.approx(float(expected))
    assert agreement(scores).shape == (5, 5)
    names = list(sets)
    figure = matrix(overlap(sets), names, names, ("of", "in"))
    assert svg(figure).startswith("<svg")


def test_counts_and_shares_by_layer(study_parts, top):  # noqa: F811
    index = study_parts[3].index
    by_layer = distribution({"mine": top}, index)
    located = [index.locate(n)[0] for n in top.indices.tolist()]
    for depth, (layer, shape) in enumerate(zip(index.layers, index.shapes, strict=True)):
        of_layer = by_layer[by_layer.depth == depth]
        assert set(of_layer.filter_count) == {shape[0] * shape[1]}
        assert value(of_layer, "chosen_count", contrast="mine") == located.count(layer)
        share = located.count(layer) / (shape[0] * shape[1])
        assert value(of_layer, "chosen_fraction") == pytest.approx(share)
        assert value(of_layer, "times_chance") == pytest.approx(share * len(index) / len(top))
    assert rows_of(by_layer, "chosen_count")["value"].sum() == len(top)
    head, cells = text_table(by_layer)
    assert head[3:] == ["mine, number", "mine, % of layer", "mine, × chance"]
    assert [int(row[3]) for row in cells] == [located.count(layer) for layer in index.layers]
    among = torch.zeros(len(index), dtype=torch.bool)
    among[top.indices] = True  # a set of all scored filters is as frequent as chance
    by_layer_among = distribution({"mine": top}, index, among)
    shares, chances = (
        rows_of(by_layer_among, m)["value"].tolist() for m in ("chosen_fraction", "times_chance")
    )
    assert chances == pytest.approx(shares)
    assert svg(layer_distribution({"mine": top}, index)).startswith("<svg")


def test_what_changed_in_the_filters(study_parts):  # noqa: F811
    (baseline, _), *_ = study_parts
    target = copy.deepcopy(baseline)
    with torch.no_grad():
        target.conv_first.weight[0, 0] *= 2
        target.conv_first.weight[0, 1] *= -1
    change = KernelChange.of(baseline, target)
    kernel = baseline.conv_first.weight.detach()[0, :2].double().flatten(1)
    assert change.relative_size[:3].tolist() == pytest.approx([1, 2, 0], abs=1e-6)
    assert change.cosine[:3].tolist() == pytest.approx([1, -1, 1], abs=1e-6)
    assert change.growth[:3].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert change.sum_change[:2].tolist() == pytest.approx(
        [float(kernel[0].sum()), -2 * float(kernel[1].sum())], rel=1e-5
    )
    by_filters = changes(baseline, target, {"mine": FilterSet(torch.tensor([0, 1]))})
    assert list(by_filters.contrast) == ["all filters", "mine"]
    assert by_filters["turned_fraction"][1] == 0.5


def test_pointwise_kernels_have_no_direction():
    nets = [nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv1d(2, 2, 3)) for _ in range(2)]
    change = KernelChange.of(*nets)
    assert change.cosine[:6].isnan().all() and change.cosine[6:].isfinite().all()
    (_, before, _), *_ = top_kernels(*nets, FilterSet(torch.tensor([6, 0])))
    assert before.shape == (1, 3)


def test_heads_are_the_best_kernels(study_parts, top):  # noqa: F811
    (baseline, target), *_, result = study_parts
    kernels = top_kernels(baseline, target, top, 5)
    assert len(kernels) == 5
    for (name, before, after), flat in zip(kernels, top.indices.tolist(), strict=False):
        layer, row, column = result.index.locate(flat)
        assert name == f"{layer.removesuffix('.weight')} {row},{column}"
        assert torch.equal(before, baseline.state_dict()[layer][row, column])
        assert torch.equal(after, target.state_dict()[layer][row, column])
    assert svg(kernel_changes_figure(kernels)).startswith("<svg")
    far = FilterSet(torch.tensor([10**6]))
    for function in (top_kernels, lambda a, b, f: changes(a, b, {"x": f})):
        with pytest.raises(ValueError, match="1000000 does not exist"):
            function(baseline, target, far)


def test_channels_sum_their_filters(study_parts):  # noqa: F811
    (_, target), *_, result = study_parts
    total = sum(result.mean(name) for name in RECIPES)
    torch.testing.assert_close(filter_importance(result), total)
    scores = channel_importance(target, result)
    assert list(scores) == [layer.removesuffix(".weight") for layer in result.index.layers]
    first = total[: 4 * 3].view(4, 3)
    torch.testing.assert_close(scores["conv_first"], first.sum(1))
    most = channel_importance(target, result, reduce="max")["conv_first"]
    torch.testing.assert_close(most, first.amax(1))
    blur = channel_importance(target, result, Contrast("b", "blur", ()), "mean")["conv_first"]
    torch.testing.assert_close(blur, result.mean("blur")[:12].view(4, 3).mean(1))
    with pytest.raises(ValueError, match="reduce is 'median'"):
        channel_importance(target, result, reduce="median")
    with pytest.raises(ValueError, match="the attribution is of the network"):
        channel_importance(nn.Conv2d(3, 3, 3), result)


def test_torchs_own_pruning_takes_the_scores(study_parts):  # noqa: F811
    (_, target), *_, result = study_parts
    net = copy.deepcopy(target)
    scores = weight_importance(net, result)
    layer = net.body[0].conv1
    prune.ln_structured(layer, "weight", 2, n=1, dim=0, importance_scores=scores["body.0.conv1"])
    least = channel_importance(target, result)["body.0.conv1"].argsort()[:2]
    dead = (layer.weight.flatten(1).abs().sum(1) == 0).nonzero().flatten()
    assert sorted(dead.tolist()) == sorted(least.tolist())
    prune.l1_unstructured(net.conv_hr, "weight", 0.5, importance_scores=scores["conv_hr"])
    gone = (net.conv_hr.weight_mask.flatten(2).sum(2) == 0).sum()
    assert int(gone) >= 7  # a filter's weights share its score, so whole filters go


def test_torch_pruning_removes_the_least_channels(study_parts):  # noqa: F811
    tp = pytest.importorskip("torch_pruning")
    (_, target), *_, result = study_parts
    net = copy.deepcopy(target)
    importance = FaigImportance(net, result)
    kept_back = [m for n, m in net.named_modules() if n and n != "body.0.conv1"]
    x = torch.rand(1, 3, 12, 12)
    pruner = tp.pruner.BasePruner(
        net, x, importance=importance, pruning_ratio=0.5,
        ignored_layers=[m for m in kept_back if isinstance(m, nn.Conv2d)],
    )  # fmt: skip
    pruner.step()
    assert net.body[0].conv1.out_channels == 2 and net(x).shape == (1, 3, 24, 24)
    best = channel_importance(target, result)["body.0.conv1"].argsort(descending=True)[:2]
    expected = target.body[0].conv1.weight[best.sort().values]
    assert torch.equal(net.body[0].conv1.weight, expected)
    with pytest.raises(ValueError, match="not pruned yet"):
        graph = tp.DependencyGraph().build_dependency(net, x)
        importance(graph.get_pruning_group(net.body[0].conv1, tp.prune_conv_out_channels, [0]))


@pytest.mark.parametrize("name", ["srresnet-32x8-x2", "srcnn-24x4-x2"])
def test_the_documents_example_of_pruning_runs(study_parts, name):  # noqa: F811
    pytest.importorskip("torch_pruning")
    baseline, target = shipped_pair(name)
    _, attributed, *_ = study_parts
    one = slice(0, 1)
    batch = {"lq": {d: x[one] for d, x in attributed.lq.items()}, "gt": attributed.gt[one]}
    result = faigfast.attribute(baseline, target, batch, steps=1)
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "prune.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pruner" in b]
    net, x = copy.deepcopy(target), attributed.lq["blur"][one]
    exec(block, {"net": net, "x": x, "result": result})
    convolutions = [[m for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (target, net)]
    widths = [[m.out_channels for m in of] for of in convolutions]
    unpruned_widths = (max(widths[0]), 3)  # the layer before the pixel shuffle, and the last
    assert widths[1] == [width if width in unpruned_widths else width // 2 for width in widths[0]]
    assert widths[1][-1] == 3
    assert net(x).shape == target(x).shape


def test_index_of_a_copy_is_the_index(study_parts):  # noqa: F811
    (_, target), *_, result = study_parts
    assert FilterIndex.of(copy.deepcopy(target)) == result.index


def test_layers_without_scores_have_no_importance(study_parts):  # noqa: F811
    nets, attributed, *_ = study_parts
    batch = {"lq": attributed.lq, "gt": attributed.gt}
    result = faigfast.attribute(*nets, batch, steps=1, parameters=["body*"])
    names = {name for name, layer in nets[1].named_modules() if isinstance(layer, nn.Conv2d)}
    body = {name for name in names if name.startswith("body")}
    assert body and body != names
    assert channel_importance(nets[1], result).keys() == body
    assert weight_importance(nets[1], result).keys() == body


def test_kernels_of_transposed_layers_stay_with_their_output():
    net = nn.Sequential(nn.ConvTranspose2d(4, 5, 3))
    index = FilterIndex.of(net)
    every = FilterSet(torch.arange(len(index)), len(index))
    now = shuffled(net, every, seed=1, within_outputs=True)[0].weight
    before = net[0].weight
    assert not torch.equal(now, before)
    for output in range(5):
        one, other = (x[:, output].flatten(1).sum(1).sort().values for x in (now, before))
        torch.testing.assert_close(one, other)
