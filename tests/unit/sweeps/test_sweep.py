"""sweep(): equal to attribute(), resumable, and new units alone when a plan grows."""

import json

import pytest
import torch
from cases.sweeps import add_photo, computed_units, files_of

import faigfast
from faigfast.sweeps import local
from faigfast.sweeps.plan import Plan
from faigfast.sweeps.run import sweep


def test_equals_attribute_to_the_bit(plan, checkpoints, tmp_path):
    plan["settings"] = [{"steps": 2}, {"method": "signed", "steps": 3}, {"method": "gradient"}]
    result = sweep(plan, tmp_path / "out", workers=0)
    pair = faigfast.load_pair(checkpoints / "a.pth", checkpoints / "b.pth")
    assert result.degradations == ("noise=0.05", "noise=0.1", "blur=1")
    assert result.settings == ("steps=2", "signed steps=3", "gradient")
    for name in result.degradations:
        for setting, options in zip(
            result.settings,
            ({"steps": 2}, {"steps": 3, "signed": True}, {"rule": "left", "steps": 1}),
            strict=True,
        ):
            units = list(result.scores(None, name, setting))
            assert sorted(n for unit in units for n in unit.names) == [f"p{n}" for n in range(5)]
            batches = result.batches(None, name, setting)
            for unit, batch in zip(units, batches, strict=True):
                wanted = faigfast.attribute(*pair, batch, **options)
                assert torch.equal(unit.scores, wanted.scores(name))
                assert torch.equal(unit.tensors["losses"], wanted.losses[0])
                assert batch["name"] == list(unit.names)


def test_the_method_input(plan, checkpoints, tmp_path):
    from faigfast.analysis.baselines import rank_by

    plan["settings"] = {"image path": {"method": "input", "steps": 2}}
    result = sweep(plan, tmp_path / "out", workers=0)
    pair = faigfast.load_pair(checkpoints / "a.pth", checkpoints / "b.pth")
    unit, batch = next(result.scores(None, "blur=1")), next(result.batches(None, "blur=1"))
    wanted = rank_by("input", *pair, batch, steps=2)
    assert torch.equal(unit.scores, wanted.scores("blur=1"))


def test_a_second_run_computes_nothing(plan, tmp_path, computed):
    sweep(plan, tmp_path / "out", workers=0)
    assert len(computed) == 9
    before = files_of(tmp_path / "out")
    computed.clear()
    sweep(plan, tmp_path / "out", workers=0)
    assert computed == [] and files_of(tmp_path / "out") == before


def test_new_images_levels_settings_and_pairs_compute_new_units_alone(
    plan, photos, checkpoints, tmp_path, computed
):
    out = tmp_path / "out"
    first = sweep(plan, out, workers=0)
    means = {name: first.mean(None, name) for name in first.degradations}
    computed.clear()
    add_photo(photos, 5)
    add_photo(photos, 6)
    grown = sweep(plan, out, workers=0)
    assert sorted(computed_units(computed)) == sorted(
        (name, (image,)) for name in first.degradations for image in ("p5", "p6")
    )
    computed.clear()
    plan["degradations"]["noise"].append(0.2)
    sweep(plan, out, workers=0)
    assert {name for name, _ in computed_units(computed)} == {"noise=0.2"}
    computed.clear()
    plan["settings"].append({"steps": 3})
    sweep(plan, out, workers=0)
    assert {task.setting.name for task in computed} == {"steps=3"}
    computed.clear()
    plan["pairs"]["back"] = [str(checkpoints / "b.pth"), str(checkpoints / "a.pth")]
    result = sweep(plan, out, workers=0)
    assert {task.names["pair"] for task in computed} == {"back"}
    assert result.pairs == ("tiny", "back")
    # A fresh sweep of the first plan's images has the same scores, whatever came later.
    for name, mean in means.items():
        assert not torch.equal(grown.mean(None, name), mean)
    (photos / "p5.png").unlink()
    (photos / "p6.png").unlink()
    computed.clear()
    again = sweep(plan, out, workers=0)
    assert computed == []
    for name, mean in means.items():
        assert torch.equal(again.mean("tiny", name, "steps=2"), mean)


def test_noise_follows_content_and_recipe_alone(plan, photos, tmp_path):
    first = sweep(plan, tmp_path / "one", workers=0)
    batches = {b["name"][0]: b for b in first.batches(None, "noise=0.1")}
    (photos / "p0.png").rename(photos / "z.png")
    plan["degradations"] = {"x": "noise=0.1"}
    plan["shard"] = 1
    second = sweep(plan, tmp_path / "two", workers=0)
    moved = {b["name"][0]: b for b in second.batches()}
    assert torch.equal(moved["z"]["lq"]["x"][0], batches["p0"]["lq"]["noise=0.1"][0])
    assert not torch.equal(moved["p2"]["lq"]["x"], moved["p4"]["lq"]["x"])


def test_a_truncated_file_is_computed_again(plan, tmp_path, computed):
    out = tmp_path / "out"
    mean = sweep(plan, out, workers=0).mean(None, "blur=1")
    broken = sorted((out / "scores").rglob("*.safetensors"))[:2]
    broken[0].write_bytes(broken[0].read_bytes()[:50])
    broken[1].unlink()
    computed.clear()
    result = sweep(plan, out, workers=0)
    assert {task.unit for task in computed} == {path.stem for path in broken}
    assert torch.equal(result.mean(None, "blur=1"), mean)


def test_verify_finds_a_flipped_bit(plan, tmp_path, computed):
    out = tmp_path / "out"
    sweep(plan, out, workers=0)
    broken = next((out / "scores").rglob("*.safetensors"))
    content = bytearray(broken.read_bytes())
    content[-3] ^= 1
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"digest in it; run the sweep again with verify"):
        list(
            faigfast.open_sweep(out).mean(None, name)
            for name in ("noise=0.05", "noise=0.1", "blur=1")
        )
    computed.clear()
    sweep(plan, out, workers=0)
    assert computed == []
    sweep(plan, out, workers=0, verify=True)
    assert [task.unit for task in computed] == [broken.stem]


def test_a_file_without_a_record_is_adopted(plan, tmp_path, computed):
    out = tmp_path / "out"
    sweep(plan, out, workers=0)
    records = (out / "finished.bin").read_bytes()
    (out / "finished.bin").write_bytes(records[: len(records) // 9 * 4 + 17])  # killed in a record
    computed.clear()
    result = sweep(plan, out, workers=0)
    assert computed == [] and result.status.done == 9
    assert len((out / "finished.bin").read_bytes()) == len(records)


@pytest.mark.parametrize("damage", ["gone", "half", "flipped"])
def test_a_damaged_catalogue_loses_no_scores(plan, tmp_path, computed, damage):
    out = tmp_path / "out"
    plan["degradations"] = {"noise": [0.1, 0.05], "blur": 1}
    first = sweep(plan, out, workers=0)
    means = {name: first.mean(None, name) for name in first.degradations}
    file = out / "catalogue.jsonl"
    whole = file.read_bytes()
    place = whole.index(b"noise=0.05")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[:place] + (b"" if damage == "half" else b'"' + whole[place:]))
    computed.clear()
    plan["degradations"] = {"blur": 1, "noise": [0.05, 0.1]}
    result = sweep(plan, out, workers=0)
    assert computed == [] and result.status.done == 9
    for name, mean in means.items():
        assert torch.equal(result.mean(None, name), mean)


def test_a_unit_computed_twice_changes_nothing(plan, tmp_path, monkeypatch):
    out = tmp_path / "out"
    sweep(plan, out, workers=0)
    before = files_of(out)
    (out / "finished.bin").unlink()
    monkeypatch.setattr("faigfast.sweeps.ledger.Ledger.adopt", lambda self, unit: False)
    sweep(plan, out, workers=0)
    assert files_of(out) == before


def test_a_poisoned_image_is_isolated(plan, photos, tmp_path, computed):
    whole = (photos / "p2.png").read_bytes()
    (photos / "p2.png").write_bytes(whole[:-30])  # the header is whole
    out = tmp_path / "out"
    result = sweep(plan, out, workers=0, max_failures=1)
    assert {failure["image"] for failure in result.failures} == {"p2"}
    assert "p2.png cannot be read" in result.failures[0]["reason"]
    assert result.status.failed == 3 and result.status.done == result.status.total - 3
    names = [name for unit in result.scores(None, "blur=1") for name in unit.names]
    assert sorted(names) == ["p0", "p1", "p3", "p4"]
    computed.clear()
    sweep(plan, out, workers=0)  # tries the image alone again
    assert {images for _, images in computed_units(computed)} == {("p2",)}


def test_images_that_cannot_be_opened_are_reported(plan, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"nothing")
    result = sweep(plan, tmp_path / "out", workers=0)
    assert [failure["image"] for failure in result.failures] == ["bad"]
    assert result.status.done == 9
    with pytest.raises(ValueError, match="1 image failed, more than max_failures=0; the last one"):
        sweep(plan, tmp_path / "out2", workers=0, max_failures=0)


def test_an_image_that_changes_meanwhile_is_refused(plan, photos, tmp_path, monkeypatch):
    original = local.InProcess.send

    def send(self, worker, task, pair):
        add_photo(photos, 1)
        (photos / "p1.png").write_bytes((photos / "p3.png").read_bytes())
        original(self, worker, task, pair)

    monkeypatch.setattr(local.InProcess, "send", send)
    result = sweep(plan, tmp_path / "out", workers=0)
    assert {failure["image"] for failure in result.failures} == {"p1"}
    assert "has changed since the sweep listed it" in result.failures[0]["reason"]


def test_an_interrupt_says_what_is_kept(plan, tmp_path, computed, monkeypatch):
    original = local.InProcess.events

    def events(self, timeout):
        if len(computed) == 4:
            raise KeyboardInterrupt
        return original(self, timeout)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(local.InProcess, "events", events)
        with pytest.raises(KeyboardInterrupt, match=r"kept: 4 units in .*out; the same command"):
            sweep(plan, out, workers=0)
    assert faigfast.open_sweep(out).status.done == 4
    computed.clear()
    result = sweep(plan, out, workers=0)
    assert len(computed) == 5
    whole = sweep(plan, tmp_path / "whole", workers=0)
    for name in result.degradations:
        assert torch.equal(result.mean(None, name), whole.mean(None, name))


def test_networks_in_memory(plan, checkpoints, tmp_path):
    pair = faigfast.load_pair(checkpoints / "a.pth", checkpoints / "b.pth")
    from_files = sweep(plan, tmp_path / "files", workers=0)
    result = sweep(Plan(**{**plan, "pairs": {"mine": pair}}), tmp_path / "out", workers=0)
    assert torch.equal(result.mean("mine", "blur=1"), from_files.mean("tiny", "blur=1"))


def test_snapshots_against_their_start(plan, checkpoints, tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    for name in ("100", "200"):
        (folder / f"{name}.pth").write_bytes((checkpoints / "b.pth").read_bytes())
    other = torch.load(folder / "200.pth", weights_only=True)
    torch.save({key: value + 0.1 for key, value in other.items()}, folder / "200.pth")
    plan["pairs"] = {"run": {"start": str(checkpoints / "a.pth"), "snapshots": str(folder)}}
    result = sweep(plan, tmp_path / "out", workers=0)
    assert result.pairs == ("run/100", "run/200") and result.status.done == 18


def test_a_folder_of_other_files_is_refused(plan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'diary.txt' and no sweep"):
        sweep(plan, tmp_path / "out", workers=0)


def test_a_folder_of_a_process_that_was_killed_at_once(plan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".faigfast-x.json").write_text("{")
    assert sweep(plan, tmp_path / "out", workers=0).status.done == 9
    assert not (tmp_path / "out" / ".faigfast-x.json").exists()


def test_a_second_driver_is_told_who_works(plan, tmp_path):
    from faigfast.io.lock import alone_in

    out = tmp_path / "out"
    sweep(plan, out, workers=0)
    holder = json.loads((out / "driver.json").read_text())
    with alone_in(out), pytest.raises(ValueError, match=rf"in use: process {holder['process']} on"):
        sweep(plan, out, workers=0)


def test_a_read_only_output_stops_with_one_sentence(plan, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("faigfast.sweeps.score_files.os.link", fails)
        with pytest.raises(ValueError, match=r"cannot be written: No space left on device"):
            sweep(plan, out, workers=0)
    assert sweep(plan, out, workers=0).status.done == 9
