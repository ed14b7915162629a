"""open_sweep(): reductions over the files equal to the same on all scores in memory."""

import numpy as np
import pytest
import torch

import faigfast
from faigfast.sweeps import tables
from faigfast.sweeps.run import sweep

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def result(checkpoints, tmp_path_factory):
    from cases.sweeps import add_photo

    folder = tmp_path_factory.mktemp("sweep")
    for n in range(9):
        add_photo(folder / "photos", n)
    plan = {
        "pairs": {"tiny": [str(checkpoints / "a.pth"), str(checkpoints / "b.pth")]},
        "images": str(folder / "photos"),
        "degradations": {"noise": [0.05, 0.1], "blur": 1},
        "settings": [{"steps": 2}, {"steps": 3}, {"parameters": "features.2*"}],
        "shard": 2,
    }
    sweep(plan, folder / "out", workers=0)
    return faigfast.open_sweep(folder / "out")


def all_scores(result, degradation, setting="steps=2"):
    """[N, F] in the order of the images' identities."""
    rows = {}
    for unit in result.scores(None, degradation, setting):
        rows |= dict(zip(unit.images, unit.scores.double(), strict=True))
    return torch.stack([rows[image] for image in sorted(rows)])


def test_names_and_units(result):
    assert result.pairs == ("tiny",)
    assert result.degradations == ("noise=0.05", "noise=0.1", "blur=1")
    assert result.settings == ("steps=2", "steps=3", "parameters=features.2*")
    frame = result.units()
    assert len(frame) == 45 and frame["images"].sum() == 9 * 3 * 3
    assert all((result.folder / file).stat().st_size == size for file, size in
               zip(frame["file"], frame["bytes"], strict=True))  # fmt: skip
    assert "45 of 45 units" in repr(result)
    assert all_scores(result, "blur=1").shape == (9, len(result.index()))


def test_unknown_and_missing_names(result):
    with pytest.raises(ValueError, match=r"setting is 'steps=4' \(did you mean 'steps="):
        result.mean(None, "blur=1", "steps=4")
    with pytest.raises(ValueError, match="degradation is None; expected one of"):
        result.mean(setting="steps=2")


def test_means_and_contrasts(result):
    noise, other, blur = (all_scores(result, name) for name in result.degradations)
    torch.testing.assert_close(result.mean(None, "blur=1", "steps=2"), blur.mean(0))
    got = result.contrast("blur=1", setting="steps=2")
    torch.testing.assert_close(got, (blur - (noise + other) / 2).mean(0))
    got = result.contrast("blur=1", "noise=0.1", setting="steps=2")
    torch.testing.assert_close(got, (blur - other).mean(0))
    torch.testing.assert_close(result.contrast("blur=1", [], setting="steps=2"), blur.mean(0))


def test_quantiles_do_not_depend_on_the_memory(result):
    wanted = np.quantile(all_scores(result, "blur=1").numpy(), [0.1, 0.5, 1], axis=0)
    for memory in (10**9, 500, 1):
        got = result.quantiles([0.1, 0.5, 1], None, "blur=1", "steps=2", memory=memory)
        torch.testing.assert_close(got, torch.from_numpy(wanted))
    with pytest.raises(ValueError, match=r"q is \[1.5\]"):
        result.quantiles([1.5], None, "blur=1", "steps=2")


def test_top_filters_of_selected_layers_fit_the_networks(result, checkpoints):
    top = result.top("blur=1", n=3, setting="parameters=features.2*")
    assert {layer for layer, _, _ in top} == {"features.2.weight"}
    contrast = result.contrast("blur=1", setting="parameters=features.2*")
    assert contrast[top.indices].tolist() == sorted(contrast[top.indices].tolist(), reverse=True)
    pair = faigfast.load_pair(checkpoints / "a.pth", checkpoints / "b.pth")
    assert top.swap(*pair) is not None


def test_overlap_between_settings_and_degradations(result):
    frame = result.overlap("blur=1", 0.1)
    assert list(frame.columns) == list(result.settings) and frame.loc["steps=2", "steps=2"] == 1
    one, other = (set(result.top("blur=1", 0.1, setting=s).indices.tolist()) for s in
                  ("steps=2", "steps=3"))  # fmt: skip
    assert frame.loc["steps=2", "steps=3"] == len(one & other) / len(one)
    frame = result.overlap(None, 0.1, between="degradation", setting="steps=2")
    assert list(frame.index) == list(result.degradations)
    with pytest.raises(ValueError, match="between is 'size'"):
        result.overlap("blur=1", between="size")


def test_stability_grows_with_images(result, monkeypatch):
    frame = result.stability("blur=1", 0.1, setting="steps=2", draws=20)
    assert list(frame["images"]) == [1, 2, 4, 8, 9]
    assert (frame["low"] <= frame["overlap"]).all() and (frame["overlap"] <= frame["high"]).all()
    assert frame["overlap"].iloc[-1] >= frame["overlap"].iloc[0]
    monkeypatch.setattr(tables, "MEMORY", 1)  # a pass over the files for every sample
    again = result.stability("blur=1", 0.1, setting="steps=2", draws=20, counts=[9])
    assert len(again) == 1 and 0 <= again["low"][0] <= again["high"][0] <= 1
    with pytest.raises(ValueError, match="counts hold 10; expected 1 to 9"):
        result.stability("blur=1", setting="steps=2", counts=[10])


def test_stability_of_equal_images_is_one(checkpoints, tmp_path):
    from faigfast.data import write_image

    write_image(tmp_path / "photos" / "a.png", torch.rand(3, 12, 12))
    pair = [str(checkpoints / "a.pth"), str(checkpoints / "b.pth")]
    plan = {"pairs": {"p": pair}, "images": str(tmp_path / "photos"), "degradations": ["blur=1"]}
    frame = sweep(plan, tmp_path / "out", workers=0).stability(fraction=0.1, draws=3)
    assert list(frame["overlap"]) == [1.0]


def test_parquet_for_pyarrow_and_duckdb(result, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import dataset

    result.to_parquet(tmp_path / "table")
    table = dataset.dataset(tmp_path / "table").to_table()
    assert table.num_rows == 81 and len(table["scores"][0]) == len(result.index())
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        f"select avg(list_sum(scores::float[])) from '{tmp_path}/table/*.parquet' "
        "where degradation = 'blur=1' and setting = 'steps=2'"
    ).fetchall()
    assert rows[0][0] == pytest.approx(all_scores(result, "blur=1").sum(1).mean().item(), rel=1e-5)


def test_images_of_an_opened_sweep_are_unknown(result):
    with pytest.raises(ValueError, match=r"call faigfast.sweep again"):
        next(result.batches(None, "blur=1", "steps=2"))


def test_there_is_no_sweep(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no sweep in"):
        faigfast.open_sweep(tmp_path)
