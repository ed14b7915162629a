"""Losses at the nodes of the line, and the barrier that follows from them."""

import math

import pytest
import torch
from cases.networks import images, kinked, pair
from torch import nn

import faigfast
from faigfast import reference
from faigfast.analysis.baselines import METHODS, rank_by
from faigfast.integration.line_losses import barrier, joined_tables, loss_table
from faigfast.integration.path import WeightPath
from faigfast.io.tensor_file import load_tensors, save_tensors

RULES = (
    {"steps": 4},
    {"rule": "left", "steps": 3},
    {"rule": "left", "steps": 50, "emulate": True},
    {"rule": "gauss-kronrod", "steps": 5},
    {"rule": "graded", "tol": 0.02, "steps": 30},
)


def batch(n=2):
    x, gt = images(n)
    return {"lq": {"a": x, "b": images(n, seed=5)[0]}, "gt": gt}


def losses_of(nets, alpha, x, gt):
    path = WeightPath(*nets)
    with torch.no_grad():
        return (path.call(path.at(alpha), x) - gt).square().flatten(1).sum(1)


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
@pytest.mark.parametrize("options", RULES, ids=str)
def test_line_holds_the_losses_of_the_networks_at_every_node(options, backend):
    nets, given = pair(kinked), batch()
    result = faigfast.attribute(*nets, given, backend=backend, **options)
    assert result.line.dtype == torch.float64 and result.line.shape[:2] == (2, 2)
    assert result.line.shape[2] == int(result.points.max())
    for d, name in enumerate(result.degradations):
        for n in range(2):
            rows = result.line[d, n][: int(result.points[d, n])]
            assert result.line[d, n][len(rows) :].isnan().all()
            assert (rows[:, 0].diff() > 0).all()
            for alpha, loss in rows.tolist():
                value = losses_of(nets, alpha, given["lq"][name][n : n + 1], given["gt"][n : n + 1])
                assert float(value) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(result.barrier, barrier(result.line, result.losses))


@pytest.mark.parametrize("steps", [1, 5])
def test_no_forward_is_added(steps, monkeypatch):
    counts = []
    call = WeightPath.evaluate
    monkeypatch.setattr(
        WeightPath, "evaluate", lambda *a, **k: (counts.append(1), call(*a, **k))[1]
    )
    faigfast.attribute(*pair(kinked), images(1), steps=steps, backend="reference")
    alone = len(counts)
    counts.clear()
    monkeypatch.setattr(reference, "loss_table", lambda nodes, losses: torch.empty(0, 2))
    faigfast.attribute(*pair(kinked), images(1), steps=steps, backend="reference")
    assert alone == len(counts) and alone >= steps + 2


def test_barrier_by_hand():
    losses = torch.tensor([4.0, 2.0], dtype=torch.float64)

    def of(*rows):
        return float(barrier(torch.tensor(rows, dtype=torch.float64), losses))

    assert of((0.25, 3.5), (0.5, 6.0)) == pytest.approx(3 / 4)
    assert of((0.5, 3.0), (0.75, 3.5)) == pytest.approx(1 / 4)
    assert of((0.5, 2.0)) == 0.0
    assert of((0.5, 6.0), (math.nan, math.nan)) == pytest.approx(3 / 4)
    assert math.isnan(of((0.0, 4.0), (1.0, 2.0)))
    assert math.isnan(float(barrier(torch.empty(0, 2), losses)))
    none = torch.zeros(2, dtype=torch.float64)
    assert float(barrier(torch.tensor([[0.5, 0.0]]), none)) == 0.0
    assert math.isinf(float(barrier(torch.tensor([[0.5, 1.0]]), none)))
    less = torch.tensor([-4.0, -2.0])
    assert float(barrier(torch.tensor([[0.5, -1.0]]), less)) == pytest.approx(2 / 4)


def test_a_hidden_unit_in_another_place_is_a_barrier():
    """Permuted channels compute the same, but not on the way."""

    def made():
        return nn.Sequential(
            nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False)
        )

    a, b = made(), made()
    for net, order in ((a, [0, 1]), (b, [1, 0])):
        net[0].weight.data = torch.tensor([1.0, -1.0])[order].view(2, 1, 1, 1)
        net[2].weight.data = torch.tensor([1.0, -1.0])[order].view(1, 2, 1, 1)
    x = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    gt = x + 0.1
    result = faigfast.attribute(a, b, (x, gt), rule="left", steps=4)
    low, high = losses_of((a, b), 0.0, x, gt), losses_of((a, b), 0.5, x, gt)
    assert float(result.barrier) == pytest.approx(float((high - low) / low), rel=1e-4)
    assert float(result.barrier) > 10
    assert any(note.startswith("barrier: ") for note in result.notes)


def test_tables_are_sorted_and_filled_up():
    table = loss_table([0.75, 0.25], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert table.tolist() == [[[0.25, 3.0], [0.75, 1.0]], [[0.25, 4.0], [0.75, 2.0]]]
    joined = joined_tables([table, table[:, :1]], 0)
    assert joined.shape == (4, 2, 2) and joined[2:, 1].isnan().all()
    assert torch.equal(joined[:2], table)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_line_survives_merging_and_files(options, tmp_path):
    nets, given = pair(kinked), batch(3)
    result = faigfast.attribute(*nets, given, **options)
    parts = [
        faigfast.attribute(
            *nets,
            {"lq": {k: v[n] for k, v in given["lq"].items()}, "gt": given["gt"][n]},
            **options,
        )
        for n in (slice(0, 1), slice(1, 3))
    ]
    merged = parts[0].merge(parts[1])
    torch.testing.assert_close(merged.line, result.line, rtol=1e-6, atol=0, equal_nan=True)
    assert merged.distance == result.distance
    result.save(tmp_path / "r.safetensors")
    again = faigfast.Attribution.load(tmp_path / "r.safetensors")
    assert torch.equal(again.line.nan_to_num(-1), result.line.nan_to_num(-1))
    assert again.distance == result.distance and again.notes == result.notes


def test_files_of_older_versions_have_no_line(tmp_path):
    result = faigfast.attribute(*pair(kinked), batch(), steps=3)
    tensors, metadata = result.to_tensors()
    del tensors["line"], tensors["distance"]
    save_tensors(tmp_path / "old.safetensors", tensors, metadata)
    assert "line" not in load_tensors(tmp_path / "old.safetensors")[0]
    old = faigfast.Attribution.load(tmp_path / "old.safetensors")
    assert old.line.shape == (2, 2, 0, 2) and old.barrier.isnan().all()
    assert math.isnan(float(old.distance)) and not old.distance.layers
    assert not any(note.startswith("barrier: ") for note in old.notes)
    merged = old.merge(result)
    assert merged.barrier.isnan().sum(1).tolist() == [2, 2]
    assert merged.distance == result.distance
    merged.save(tmp_path / "merged.safetensors")
    assert faigfast.Attribution.load(tmp_path / "merged.safetensors").images == 4


@pytest.mark.parametrize("method", METHODS)
def test_rivals_without_nodes_between_the_ends_have_no_barrier(method, tmp_path):
    nets = pair(kinked)
    result = rank_by(method, *nets, batch(), steps=3)
    known = method in ("faig", "signed")
    assert bool(result.barrier.isfinite().all()) == known
    assert result.barrier.shape == result.completeness.shape
    assert result.line.shape[2] == {"faig": 3, "signed": 3, "gradient": 1}.get(method, 0)
    assert float(result.distance) > 0
    if not known:
        assert result.barrier.isnan().all()


def mutated(name, change):
    tensors, metadata = faigfast.attribute(*pair(kinked), batch(), steps=3).to_tensors()
    return {**tensors, name: change(tensors[name].clone())}, metadata


def with_value(place, value):
    def change(tensor):
        tensor[place] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("line", lambda t: t[..., :1], "line is"),
        ("line", lambda t: t[:, :1], "line is"),
        ("line", lambda t: t.long(), "line is of torch.int64"),
        ("line", with_value((0, 0, 1, 1), math.nan), "not finite beside"),
        ("line", with_value((0, 0, 1, 1), math.inf), "not finite beside"),
        ("line", with_value((0, 0, 2, 0), 1.5), "do not ascend"),
        ("line", with_value((0, 0, 0, 0), 0.9), "do not ascend"),
        ("line", lambda t: t[:, :, :2], "different numbers of points"),
        ("distance", lambda t: t[:-1], "distance is"),
        ("distance", lambda t: t.float(), "distance is"),
        ("distance", with_value((0,), -1.0), "distance holds"),
        ("distance", with_value((1,), math.nan), "distance holds"),
    ],
)
def test_damaged_lines_are_refused(name, change, words):
    with pytest.raises(ValueError, match=words):
        faigfast.Attribution.from_tensors(*mutated(name, change))
