"""`faigfast attribute` on images of one size: in groups, read ahead, hashed while computing."""

import json
import threading
from functools import partial

import pytest
import torch
from cases import command_line
from cases.command_line import expected, load, one_line

import faigfast
from faigfast.analysis.baselines import rank_by
from faigfast.backend.gpu.devices import Devices
from faigfast.cli import reading
from faigfast.cli.main import main
from faigfast.cli.output import sha256
from faigfast.cli.reading import group_by_size, read_ahead
from faigfast.cli.run_folder import one_by_one
from faigfast.data import Degradation, DegradedFolder, write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

SIZES = {"a": (24, 24), "b": (24, 26), "c": (24, 24), "d": (24, 24), "e": (24, 26), "f": (24, 24)}
GROUPS = [["a", "c"], ["b", "e"], ["d", "f"]]  # of at most two images


@pytest.fixture
def photographs(here, monkeypatch):
    """Six images of two sizes, in groups of at most two."""
    monkeypatch.setattr(reading, "IMAGES", 2)
    generator = torch.Generator().manual_seed(2)
    folder = here.parent / "photographs"
    for name, size in SIZES.items():
        write_image(folder / f"{name}.png", torch.rand(3, *size, generator=generator))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Numbers of images of an Attributor's calls; set `failure` to fail in call number `at`."""
    calls = type("Calls", (), {"images": [], "at": None, "failure": KeyboardInterrupt()})()
    original = faigfast.Attributor.__call__

    def counting(attributor, batch):
        if isinstance(batch, dict):  # not of `expected`
            calls.images.append(len(batch["gt"]))
            if len(calls.images) == calls.at:
                raise calls.failure
        return original(attributor, batch)

    monkeypatch.setattr(faigfast.Attributor, "__call__", counting)
    return calls


def attribute(photographs, output, *words, steps=2):
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", str(photographs), "--quiet"]
    recipes = ["--degrade", "blur=1", "noise=0.1"]
    return [*argv, "--output", str(output), "--steps", str(steps), *words, *recipes]


def degraded(photographs):
    recipe = {"blur": Degradation(blur=1.0), "noise": Degradation(noise=0.1)}
    return DegradedFolder(photographs, recipe)


def same_but_for_rounding(one, other):
    assert one.setting == other.setting and one.degradations == other.degradations
    for name in one.degradations:
        torch.testing.assert_close(one.scores(name), other.scores(name), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.losses, other.losses)
    assert torch.equal(one.points, other.points)


def kept(output):
    return [path.stem for path in sorted((output / "parts").glob("*.safetensors"))]


def no_thread_is_left():
    return not [t for t in threading.enumerate() if t.name.startswith("faigfast-reading")]


# Groups


@pytest.mark.parametrize(
    ("words", "options"),
    [((), {}), (("--tol", "0.3"), {"tol": 0.3, "steps": 27})],
    ids=["fixed", "tol"],
)
def test_groups_give_what_single_images_give(photographs, here, calls, words, options):
    assert main(attribute(photographs, here, *words, steps=options.get("steps", 2))) == 0
    assert calls.images == [len(names) for names in GROUPS]
    data = degraded(photographs)
    same_but_for_rounding(load(here), expected(data, **options))
    manifest = json.loads((here / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == list(SIZES)
    hashes = {name: {"gt": sha256(photographs / f"{name}.png")} for name in SIZES}
    assert list(manifest["made_from"]["images"]) == list(SIZES)
    assert manifest["made_from"]["images"] == hashes
    assert no_thread_is_left()


@pytest.mark.parametrize("method", ["input", "random"])
def test_rivals_in_groups(photographs, here, method):
    assert main(attribute(photographs, here, "--method", method)) == 0
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    batches = degraded(photographs).batches()
    single = [rank_by(method, *pair, batch, steps=2) for batch in batches]
    found, wanted = load(here), single[0].merge(single[1:])
    assert found.images == 6 and found.setting == wanted.setting
    for name in found.degradations:
        torch.testing.assert_close(found.mean(name), wanted.mean(name), rtol=1e-4, atol=1e-6)


def test_groups_go_to_devices(photographs, here, monkeypatch):
    original = Devices.__init__

    def settles(self, *given):
        original(self, *given)
        self.settle = True  # as on GPUs: the first image goes alone

    monkeypatch.setattr(Devices, "__init__", settles)
    assert main(attribute(photographs, here, "--devices", "cpu")) == 0
    same_but_for_rounding(load(here), expected(degraded(photographs)))


def test_large_groups_are_cut_into_equal_ones():
    size = (48, 48)
    assert [len(group) for group in group_by_size([size] * 100, 1)] == [12, 13] * 4
    assert [len(group) for group in group_by_size([size] * 7, 2)] == [7]
    assert [len(group) for group in group_by_size([size] * 7, 2, devices=2)] == [3, 4]
    assert [len(group) for group in group_by_size([size] * 3, 2, devices=8)] == [1, 1, 1]
    assert [len(group) for group in group_by_size([(2, 3)] * 64, 3)] == [32, 32]
    assert group_by_size([(500, 500), (48, 48), (500, 500)], 2) == [[0], [1], [2]]


def test_images_of_a_result_one_by_one(photographs):
    result = expected(degraded(photographs), tol=1e-9, steps=9)
    images = list(one_by_one(result))
    assert [image.images for image in images] == [1] * 6
    assert "tol 1e-09 was not reached by 1 of 1 image" in images[2].notes[-1]
    merged = images[0].merge(images[1:])
    assert merged.notes == result.notes
    same_but_for_rounding(merged, result)
    for n, image in enumerate(images):
        assert torch.equal(image.scores("noise")[0], result.scores("noise")[n])
        assert torch.equal(image.losses[:, 0], result.losses[:, n])


def test_errors_name_the_image(photographs, here, calls, capsys):
    calls.at, calls.failure = 2, ValueError("degradation 'blur', image 1: the loss is nan")
    assert main(attribute(photographs, here)) == 1
    assert "degradation 'blur', image 'e': the loss is nan" in one_line(capsys)
    assert kept(here) == ["000000", "000002"] and no_thread_is_left()


def test_errors_of_devices_name_the_image(photographs, here, capsys, monkeypatch):
    def fails(self, parts):
        yield from ()
        raise ValueError("cpu: degradation 'blur', image 3: the loss is nan")  # of all groups

    monkeypatch.setattr(Devices, "map", fails)
    assert main(attribute(photographs, here, "--devices", "cpu")) == 1
    assert "cpu: degradation 'blur', image 'e': the loss is nan" in one_line(capsys)


# Reading


def test_reading_is_one_group_ahead(photographs):
    data = degraded(photographs)
    read = []

    class Watched:
        names, files = data.names, data.files

        def __getitem__(self, position):
            read.append(position)
            return data[position]

    groups = read_ahead(Watched(), [[0, 2], [1, 4], [3, 5]], torch.float64)
    assert read == []
    first = next(groups)
    assert first.names == ["a", "c"] and first.batch.images == 2
    assert torch.equal(first.batch.lq["noise"][1], data[2]["lq"]["noise"].double())
    assert torch.equal(first.batch.gt["noise"][0], data[0]["gt"].double())
    groups.close()
    assert set(read) <= {0, 2, 1, 4} and no_thread_is_left()


def test_an_image_that_cannot_be_read_is_named_when_it_is_due(photographs, here, capsys):
    whole = (photographs / "e.png").read_bytes()
    (photographs / "e.png").write_bytes(whole[:100])  # the header, which is read first, is whole
    assert main(attribute(photographs, here)) == 1
    assert "e.png cannot be read" in one_line(capsys)
    assert kept(here) == ["000000", "000002"] and no_thread_is_left()
    (photographs / "e.png").write_bytes(whole)
    assert main(attribute(photographs, here)) == 0
    same_but_for_rounding(load(here), expected(degraded(photographs)))


# Runs that go on


def interrupted(photographs, here, calls, at):
    calls.at = at
    assert main(attribute(photographs, here)) == 130
    calls.at = None
    calls.images.clear()


def test_an_interrupted_run_goes_on_with_the_groups_that_are_missing(
    photographs, here, calls, capsys
):
    interrupted(photographs, here, calls, at=3)
    assert "4 of 6 images finished" in capsys.readouterr().err
    assert kept(here) == ["000000", "000001", "000002", "000004"] and no_thread_is_left()
    (here / "parts" / "000004.safetensors").unlink()  # as if it had ended while it saved a group
    assert main(attribute(photographs, here)) == 0
    assert calls.images == [1, 2]
    same_but_for_rounding(load(here), expected(degraded(photographs)))
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["time"]["images_kept_from_an_interrupted_run"] == 3
    assert set(manifest["made_from"]["images"]["b"]) == {"gt"}


def test_a_run_begins_before_its_images_are_hashed(photographs, here, calls):
    interrupted(photographs, here, calls, at=1)
    run = json.loads((here / "parts" / "run.json").read_text())
    assert run["made_from"]["images"] == {name: {} for name in SIZES}


def test_only_images_with_results_are_hashed_to_go_on(photographs, here, calls, monkeypatch):
    interrupted(photographs, here, calls, at=2)
    asked = []
    original = reading.hash_files
    monkeypatch.setattr(
        reading, "hash_files", lambda images, name: asked.append(name) or original(images, name)
    )
    interrupted(photographs, here, calls, at=1)
    assert asked[:2] == ["a", "c"] and len(asked) == len(set(asked))


def replaced(path):
    write_image(path, torch.zeros(3, *SIZES[path.stem]))
    return sha256(path)


def test_an_image_that_was_replaced_is_refused(photographs, here, calls, capsys):
    interrupted(photographs, here, calls, at=2)
    old, new = sha256(photographs / "c.png"), replaced(photographs / "c.png")
    capsys.readouterr()
    refusal = (
        f"{here} holds the results of another run: images.c.gt was {old!r} and is {new!r}; choose "
        "another --output or add --overwrite"
    )
    assert main(attribute(photographs, here)) == 1
    assert refusal in one_line(capsys)
    assert calls.images == [] and kept(here) == ["000000", "000002"]
    assert main(attribute(photographs, here, "--overwrite")) == 0
    assert calls.images == [2, 2, 2]
    same_but_for_rounding(load(here), expected(degraded(photographs)))
    old, new = new, sha256(photographs / "a.png")
    (photographs / "c.png").write_bytes((photographs / "a.png").read_bytes())
    capsys.readouterr()
    assert main(attribute(photographs, here)) == 1  # so is the finished run's
    assert f"images.c.gt was {old!r} and is {new!r}" in one_line(capsys)


def test_an_image_without_a_result_may_be_replaced(photographs, here, calls):
    interrupted(photographs, here, calls, at=2)
    new = replaced(photographs / "d.png")
    assert main(attribute(photographs, here)) == 0
    same_but_for_rounding(load(here), expected(degraded(photographs)))
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["made_from"]["images"]["d"]["gt"] == new


@pytest.mark.parametrize("change", ["added", "removed"])
def test_other_images_are_refused(photographs, here, calls, capsys, change):
    interrupted(photographs, here, calls, at=2)
    (photographs / "f.png").rename(here.parent / "f.png")
    if change == "added":
        (here.parent / "f.png").rename(photographs / "aa.png")
    capsys.readouterr()
    assert main(attribute(photographs, here)) == 1
    name = "aa" if change == "added" else "f"
    assert f"holds the results of another run: images.{name} was " in one_line(capsys)


def test_a_run_that_knows_all_hashes_goes_on(photographs, here, calls):
    interrupted(photographs, here, calls, at=2)
    file = here / "parts" / "run.json"
    run = json.loads(file.read_text())
    hashes = {name: {"gt": sha256(photographs / f"{name}.png")} for name in SIZES}
    run["made_from"]["images"] = hashes  # as of a version that hashed before it computed
    file.write_text(json.dumps(run))
    assert main(attribute(photographs, here)) == 0
    assert calls.images == [2, 2]


def test_a_result_without_hashes_is_refused(photographs, here, calls, capsys):
    interrupted(photographs, here, calls, at=2)
    file = here / "parts" / "run.json"
    run = json.loads(file.read_text())
    run["made_from"]["images"]["a"] = {}
    file.write_text(json.dumps(run))
    capsys.readouterr()
    assert main(attribute(photographs, here)) == 1
    assert "images.a.gt was None and is " in one_line(capsys)


def test_reading_takes_one_thread_of_torch_and_leaves_the_others(monkeypatch, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(3)
    read = []
    monkeypatch.setattr(reading, "_read", lambda *_: read.append(torch.get_num_threads()) or read)
    assert list(read_ahead([], [[0], [1]], torch.float32)) == [read, read]
    assert read == [1, 1] and torch.get_num_threads() == 3
