"""`faigfast attribute` on images of one size: in groups, read ahead, hashed while computing."""

import json
import shutil
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
from faigfast.cli.run_folder import RunFolder, one_by_one
from faigfast.data import Degradation, DegradedFolder, write_image
from faigfast.data.images import read_hashed
from faigfast.result import Attribution

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

NAMES, SIZE = tuple("abcdef"), (24, 26)
WIDE = ("b", "e")  # where there are two sizes: the groups are then a c, b e and d f


def write_images(folder, sizes):
    generator = torch.Generator().manual_seed(2)
    for name, size in sizes.items():
        write_image(folder / f"{name}.png", torch.rand(3, *size, generator=generator))
    return folder


@pytest.fixture
def photographs(here, monkeypatch):
    """Six images of one size, in groups of two."""
    monkeypatch.setattr(reading, "IMAGES", 2)
    return write_images(here.parent / "photographs", dict.fromkeys(NAMES, SIZE))


@pytest.fixture
def two_sizes(here, monkeypatch):
    """Six images of two sizes, in groups of two that are not neighbours."""
    monkeypatch.setattr(reading, "IMAGES", 2)
    sizes = {name: SIZE if name in WIDE else (24, 24) for name in NAMES}
    return write_images(here.parent / "photographs", sizes)


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
    return [path.stem for path in sorted((output / "parts").glob("*.part"))]


def no_thread_is_left():
    return not [t for t in threading.enumerate() if t.name.startswith("faigfast-reading")]


# Groups


@pytest.mark.parametrize(
    ("words", "options"),
    [((), {}), (("--tol", "0.3"), {"tol": 0.3, "steps": 27})],
    ids=["fixed", "tol"],
)
def test_groups_give_what_single_images_give(two_sizes, here, calls, words, options):
    assert main(attribute(two_sizes, here, *words, steps=options.get("steps", 2))) == 0
    assert calls.images == [2, 2, 2]
    data = degraded(two_sizes)
    same_but_for_rounding(load(here), expected(data, **options))
    manifest = json.loads((here / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == list(NAMES)
    hashes = {name: {"gt": sha256(two_sizes / f"{name}.png")} for name in NAMES}
    assert list(manifest["made_from"]["images"]) == list(NAMES)
    assert manifest["made_from"]["images"] == hashes
    assert no_thread_is_left()


@pytest.mark.parametrize("method", ["input", "random"])
def test_rivals_in_groups(photographs, here, method):
    assert main(attribute(photographs, here, "--method", method)) == 0
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    batches = degraded(photographs).batches()
    by_image = [rank_by(method, *pair, batch, steps=2) for batch in batches]
    result, wanted = load(here), by_image[0].merge(by_image[1:])
    assert result.images == 6 and result.setting == wanted.setting
    for name in result.degradations:
        torch.testing.assert_close(result.mean(name), wanted.mean(name), rtol=1e-4, atol=1e-6)


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
    result = expected(degraded(photographs), rule="midpoint", tol=1e-9, steps=9)
    images = list(one_by_one(result))
    assert [image.images for image in images] == [1] * 6
    assert "tol 1e-09 was not reached by 1 of 1 image" in images[2].notes[-1]
    merged = images[0].merge(images[1:])
    assert merged.notes == result.notes
    assert torch.equal(merged.line.nan_to_num(-1), result.line.nan_to_num(-1))
    assert merged.distance == result.distance
    same_but_for_rounding(merged, result)
    for n, image in enumerate(images):
        assert torch.equal(image.scores("noise")[0], result.scores("noise")[n])
        assert torch.equal(image.losses[:, 0], result.losses[:, n])


def test_errors_name_the_image(two_sizes, here, calls, capsys):
    calls.at, calls.failure = 2, ValueError("degradation 'blur', image 1: the loss is nan")
    assert main(attribute(two_sizes, here)) == 1
    assert "degradation 'blur', image 'e': the loss is nan" in one_line(capsys)
    assert kept(here) == ["000000", "000002"] and no_thread_is_left()
    assert main(attribute(two_sizes, here)) == 0  # goes on with both groups that are missing
    same_but_for_rounding(load(here), expected(degraded(two_sizes)))


def test_errors_of_devices_name_the_image(photographs, here, capsys, monkeypatch):
    def fails(self, parts):
        yield from ()
        raise ValueError("cpu: degradation 'blur', image 3: the loss is nan")  # of all groups

    monkeypatch.setattr(Devices, "map", fails)
    assert main(attribute(photographs, here, "--devices", "cpu")) == 1
    assert "cpu: degradation 'blur', image 'd': the loss is nan" in one_line(capsys)


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
    content = (photographs / "d.png").read_bytes()
    (photographs / "d.png").write_bytes(content[:100])  # the header, which is read first, is whole
    assert main(attribute(photographs, here)) == 1
    assert "d.png cannot be read" in one_line(capsys)
    assert kept(here) == ["000000", "000001"] and no_thread_is_left()
    (photographs / "d.png").write_bytes(content)
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
    assert kept(here) == ["000000", "000001", "000002", "000003"] and no_thread_is_left()
    (here / "parts" / "000003.part").unlink()  # as if it had ended while it saved a group
    assert main(attribute(photographs, here)) == 0
    assert calls.images == [1, 2]
    same_but_for_rounding(load(here), expected(degraded(photographs)))
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["time"]["images_kept_from_an_interrupted_run"] == 3
    assert set(manifest["made_from"]["images"]["b"]) == {"gt"}


def test_only_images_with_results_are_hashed_to_go_on(photographs, here, calls, monkeypatch):
    interrupted(photographs, here, calls, at=2)
    asked = []
    monkeypatch.setattr(reading, "sha256", lambda path: asked.append(path.stem) or sha256(path))
    interrupted(photographs, here, calls, at=1)
    assert asked == ["a", "b"]


def replaced(path):
    write_image(path, torch.zeros(3, *SIZE))
    return sha256(path)


def test_an_image_that_was_replaced_is_refused(photographs, here, calls, capsys):
    interrupted(photographs, here, calls, at=2)
    replaced(photographs / "b.png")
    capsys.readouterr()
    refusal = (
        f"{here} holds the results of another run: image 'b' is another one; choose another "
        "folder, or add --overwrite"
    )
    assert main(attribute(photographs, here)) == 1
    assert refusal in one_line(capsys)
    assert calls.images == [] and kept(here) == ["000000", "000001"]
    assert main(attribute(photographs, here, "--overwrite")) == 0
    assert calls.images == [1, 2, 2]
    same_but_for_rounding(load(here), expected(degraded(photographs)))
    (photographs / "b.png").write_bytes((photographs / "a.png").read_bytes())
    capsys.readouterr()
    assert main(attribute(photographs, here)) == 1  # so is the finished run's
    assert "another run: image 'b' is another one; " in one_line(capsys)


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
    text = "'aa' is new" if change == "added" else "'f' is missing"
    assert f"holds the results of another run: image {text}; " in one_line(capsys)


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "no hashes"])
def test_damaged_results_are_computed_again(photographs, here, calls, damage):
    interrupted(photographs, here, calls, at=2)
    part = here / "parts" / "000000.part"
    if damage == "no hashes":
        Attribution.load(part).save(part)
    else:
        whole = part.read_bytes()
        flipped = whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]
        part.write_bytes({"empty": b"", "half": whole[:500], "flipped": flipped}[damage])
    assert main(attribute(photographs, here)) == 0
    assert calls.images == [1, 2, 2]
    same_but_for_rounding(load(here), expected(degraded(photographs)))


def test_an_image_that_changes_while_it_is_read_has_the_hash_of_what_was_read(
    photographs, here, monkeypatch
):
    original = read_hashed

    def replace_after(path, **reading):
        result = original(path, **reading)
        replaced(path)
        return result

    before = {name: sha256(photographs / f"{name}.png") for name in NAMES}
    monkeypatch.setattr("faigfast.data.folders.read_hashed", replace_after)
    assert main(attribute(photographs, here)) == 0
    manifest = json.loads((here / "manifest.json").read_text())
    assert {n: h["gt"] for n, h in manifest["made_from"]["images"].items()} == before


def test_degradations_in_another_order_are_refused_at_the_start(photographs, here, calls, capsys):
    interrupted(photographs, here, calls, at=2)
    argv = attribute(photographs, here)
    first = argv.index("--degrade") + 1
    argv[first], argv[first + 1] = argv[first + 1], argv[first]
    capsys.readouterr()
    assert main(argv) == 1
    assert "holds the results of another run: --degrade was " in one_line(capsys)
    assert calls.images == []


def test_auto_takes_the_backend_of_the_finished_images(photographs, here, calls, monkeypatch):
    interrupted(photographs, here, calls, at=2)
    before = Attribution.load(here / "parts" / "000000.part").backend
    other = "torch" if before == "cpu" else "reference"
    monkeypatch.setattr(
        "faigfast.attribution.attributor.choose",
        lambda name, *_: (other if name == "auto" else name, ""),
    )
    assert main(attribute(photographs, here)) == 0
    assert load(here).backend == before


def test_an_output_that_vanishes_stops_the_run(photographs, here, calls, capsys, monkeypatch):
    original = RunFolder.keep

    def keep_and_remove(*arguments):
        original(*arguments)
        shutil.rmtree(here)

    monkeypatch.setattr(RunFolder, "keep", keep_and_remove)
    assert main(attribute(photographs, here)) == 1
    assert "was removed or emptied by another program" in one_line(capsys)


def test_reading_takes_one_thread_of_torch_and_leaves_the_others(monkeypatch, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(3)
    read = []
    monkeypatch.setattr(reading, "_read", lambda *_: read.append(torch.get_num_threads()) or read)
    assert list(read_ahead([], [[0], [1]], torch.float32)) == [read, read]
    assert read == [1, 1] and torch.get_num_threads() == 3
