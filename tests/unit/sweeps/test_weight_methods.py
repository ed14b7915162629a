"""Methods that look at the weights alone: one unit a pair and setting serves all images."""

import pytest
import torch
from cases.sweeps import add_photo

import faigfast
from faigfast.analysis.baselines import rank_by
from faigfast.sweeps import worker
from faigfast.sweeps.dry_run import dry_run
from faigfast.sweeps.run import sweep

ONLY_WEIGHTS = {"method": "relative", "parameters": "features.2*"}


@pytest.fixture
def mixed(plan):
    """A plan that compares FAIG with rivals."""
    plan["settings"] = [
        {"steps": 2},
        {"method": "change"},
        ONLY_WEIGHTS,
        {"method": "random", "seed": 3},
        {"method": "magnitude"},
        {"method": "input", "steps": 2},
    ]
    return plan


def tasks_of(computed, name):
    return [task for task in computed if task.setting.name == name]


def test_scores_are_those_of_rank_by(mixed, checkpoints, tmp_path, computed):
    result = sweep(mixed, tmp_path / "out", workers=0)
    assert result.degradations == ("noise=0.05", "noise=0.1", "blur=1")
    names = ("change", "relative parameters=features.2*", "random seed=3", "magnitude")
    assert result.settings == ("steps=2", *names, "input steps=2")
    assert result.status.done == result.status.total == 9 + 4 + 9
    pair = faigfast.load_pair(checkpoints / "a.pth", checkpoints / "b.pth")
    batch = torch.rand(1, 3, 6, 6), torch.rand(1, 3, 12, 12)
    for name, options in zip(names, mixed["settings"][1:5], strict=True):
        wanted = rank_by(baseline=pair[0], target=pair[1], batch=batch, **options)
        assert len(tasks_of(computed, name)) == 1
        for degradation in result.degradations:
            (unit,) = result.scores(None, degradation, name)
            assert torch.equal(unit.scores, wanted.by_degradation["lq"])
            assert torch.equal(unit.tensors["scored"], wanted.scored)
            assert unit.images == unit.names == () and unit.tensors["losses"].isnan().all()
            assert torch.equal(result.mean(None, degradation, name), wanted.mean("lq"))
            assert torch.equal(result.contrast(degradation, setting=name), wanted.mean("lq"))
            top = result.top(degradation, n=4, against=[], setting=name)
            assert top.indices.tolist() == wanted.top("lq", n=4).indices.tolist()


def test_new_images_and_levels_compute_no_weights_again(mixed, photos, tmp_path, computed):
    out = tmp_path / "out"
    first = sweep(mixed, out, workers=0)
    change = first.mean(setting="change")
    computed.clear()
    add_photo(photos, 5)
    mixed["degradations"]["blur"] = [1, 2]
    grown = sweep(mixed, out, workers=0)
    assert {task.setting.name for task in computed} == {"steps=2", "input steps=2"}
    assert grown.status.done == grown.status.total
    assert torch.equal(grown.mean(None, "blur=2", "change"), change)
    names = [n for unit in grown.scores(None, "blur=1", "steps=2") for n in unit.names]
    assert sorted(names) == [f"p{n}" for n in range(6)]


def test_another_seed_is_another_setting(mixed, tmp_path, computed):
    out = tmp_path / "out"
    first = sweep(mixed, out, workers=0).mean(setting="random seed=3")
    computed.clear()
    mixed["settings"][3]["seed"] = 4
    result = sweep(mixed, out, workers=0)
    assert [task.setting.name for task in computed] == ["random seed=4"]
    assert not torch.equal(result.mean(setting="random seed=4"), first)
    assert result.status.done == result.status.total


def test_rivals_without_contrast_are_ranked_by_the_score(mixed, tmp_path):
    result = sweep(mixed, tmp_path / "out", workers=0)
    setting = "input steps=2"
    torch.testing.assert_close(
        result.contrast("blur=1", setting=setting), result.mean(None, "blur=1", setting)
    )
    given = result.contrast("blur=1", "noise=0.1", setting=setting)
    difference = result.mean(None, "blur=1", setting) - result.mean(None, "noise=0.1", setting)
    torch.testing.assert_close(given, difference)


def test_reductions_work_or_say_why_not(mixed, tmp_path):
    pytest.importorskip("pandas")
    result = sweep(mixed, tmp_path / "out", workers=0)
    frame = result.overlap("blur=1", 0.1, "noise=0.1")
    assert list(frame.columns) == list(result.settings)
    sets = [set(result.top("blur=1", 0.1, setting=s).indices.tolist())
            for s in ("change", "magnitude")]  # fmt: skip
    assert frame.loc["change", "magnitude"] == len(sets[0] & sets[1]) / len(sets[0])
    units = result.units()
    weights = units[units["setting"] == "change"]
    assert list(weights["images"]) == [0] and list(weights["degradation"]) == [""]
    message = "'change' is of the method 'change', whose scores follow from the weights alone"
    for call in (
        lambda: result.quantiles([0.5], None, "blur=1", "change"),
        lambda: result.stability("blur=1", setting="change"),
        lambda: next(result.batches(None, "blur=1", "change")),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"degradation is 'blur=3' \(did you mean"):
        result.mean(None, "blur=3", "change")


def test_parquet_has_a_row_without_image_a_degradation(mixed, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import dataset

    result = sweep(mixed, tmp_path / "out", workers=0)
    result.to_parquet(tmp_path / "table")
    rows = dataset.dataset(tmp_path / "table").to_table().to_pylist()
    weights = [row for row in rows if row["setting"] == "magnitude"]
    assert [row["degradation"] for row in weights] == list(result.degradations)
    assert {row["image"] for row in weights} == {None}
    assert weights[0]["scores"] == result.mean(setting="magnitude").float().tolist()
    assert len(rows) == 3 * 5 * 2 + 3 * 4


def test_the_dry_run_counts_one_unit(mixed, tmp_path):
    counted = dry_run(mixed, tmp_path / "out", workers=0)
    assert counted.units == 22 and counted.degradations == 3
    sweep(mixed, tmp_path / "out", workers=0)
    again = dry_run(mixed, tmp_path / "out", workers=0)
    assert (again.finished, again.bytes) == (22, 0)


def test_a_pattern_that_fits_no_layer_ends_the_sweep(plan, tmp_path):
    plan["settings"] = [{"method": "change", "parameters": "absent*"}]
    with pytest.raises(ValueError, match=r"pair 'tiny': .*absent"):
        sweep(plan, tmp_path / "out", workers=0)


def test_images_are_not_read(plan, tmp_path, monkeypatch):
    def fails(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr(worker, "read_batch", fails)
    plan["settings"] = [{"method": "magnitude"}]
    assert sweep(plan, tmp_path / "out", workers=0).status.done == 1
