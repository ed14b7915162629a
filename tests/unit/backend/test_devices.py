"""Several devices at once, simulated by several CPUs."""

import multiprocessing
from functools import partial

import pytest
import torch
from cases import command_line
from cases.command_line import RECIPES, load, one_line, same
from cases.command_line import attribute as command
from cases.device_processes import Touchy, half_squared
from cases.networks import images, pair, smooth
from torch import nn

from faigfast import attribute
from faigfast.backend.gpu import devices
from faigfast.backend.gpu.devices import Devices, known_devices
from faigfast.cli.main import main
from faigfast.integration.batch import Batch

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

CPUS = ["cpu", "cpu"]


def same_scores(result, expected, rtol=1e-9):
    assert result.images == expected.images and result.degradations == expected.degradations
    for name in expected.degradations:
        torch.testing.assert_close(
            result.scores(name), expected.scores(name), rtol=rtol, atol=1e-12
        )
    torch.testing.assert_close(result.losses, expected.losses, rtol=rtol, atol=0)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def quick_processes(monkeypatch):
    """Fork the processes from a server that has imported torch; spawning takes seconds each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faigfast.backend.gpu.devices", "faigfast.attribution"])
    monkeypatch.setattr(devices, "get_context", lambda method: context)


def test_images_come_back_in_their_order(capfd):
    nets, (x, gt) = pair(), images(5)
    batch = {"lq": {"blur": x, "noise": x.flip(0)}, "gt": gt}
    options = dict(steps=3, objective=half_squared, parameters=["0*"], backend="torch")
    result = attribute(*nets, batch, devices=CPUS, progress=True, **options)
    same_scores(result, attribute(*nets, batch, **options))
    assert "image" in capfd.readouterr().err
    (note,) = [note for note in result.notes if note.startswith("devices: ")]
    assert sorted(note.removeprefix("devices: ").split(", ")) == ["cpu 2 images", "cpu 3 images"]


def test_more_batch_sizes_than_devices_of_which_only_the_mean_is_kept(quick_processes):
    nets = pair()
    several = [images(n, size=size) for n, size in ((1, (6, 5)), (3, (4, 4)), (1, (7, 6)))]
    result = attribute(*nets, iter(several), devices=["cpu"] * 2, steps=2, per_image=False)
    same = attribute(*nets, iter(several), steps=2, per_image=False)
    torch.testing.assert_close(result.mean(None), same.mean(None))
    assert result.images == 5 and torch.equal(result.losses, same.losses)


def test_a_device_that_fails_is_named_and_the_image_too(quick_processes):
    nets, (x, gt) = pair(), images(4)
    gt[3] *= 1e200  # an image of the second device
    with pytest.raises(ValueError, match=r"^cpu: degradation 'lq', image 3: .*finite"):
        attribute(*nets, (x, gt), devices=CPUS, steps=2)


def test_a_process_that_ends_is_named():
    nets, (x, gt) = pair(Touchy), images(2, size=(6, 6))
    with pytest.raises(RuntimeError, match=r"^cpu: its process ended; a script"):
        attribute(*nets, (x, gt), devices=["cpu"], steps=2)


def test_what_cannot_be_sent_is_refused():
    nets, batch = pair(), images(2)
    with pytest.raises(ValueError, match=r"cannot be sent to another process: .*lambda"):
        attribute(*nets, batch, objective=lambda y, gt: y, devices=CPUS)
    hidden = pair(lambda: type("Hidden", (nn.Sequential,), {})(*smooth()))
    with pytest.raises(ValueError, match=r"cannot be sent to another process: .*Hidden"):
        attribute(*hidden, batch, devices=CPUS)


@pytest.mark.parametrize(
    "given, kind, words",
    [
        ("cpu", TypeError, "devices is 'cpu'; expected 'all' or names such as"),
        (3, TypeError, "devices is 3; expected"),
        ([], ValueError, r"devices is \[\]; expected some, all of one type"),
        (["cpu", "meta"], ValueError, "all of one type"),
        (["gpu0"], ValueError, r"devices is \['gpu0'\]: "),
        ([None], ValueError, r"devices is \[None\]: "),
        ("all", ValueError, "devices is 'all', and torch finds no GPU here"),
        (["cuda:0", "cuda:3"], ValueError, "devices holds 'cuda:0', and torch finds 0 GPUs here"),
    ],
)
def test_unknown_devices_are_refused(given, kind, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(kind, match=words):
        attribute(*pair(), images(2), devices=given)


def test_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert list(map(str, known_devices("all"))) == ["cuda:0", "cuda:1"]
    assert known_devices([torch.device("cuda")]) == [torch.device("cuda:0")]
    with pytest.raises(ValueError, match="'cuda:2', and torch finds 2 GPUs"):
        known_devices(["cuda:1", "cuda:2"])


def told_precision(baseline, target, batch, *, precision="auto", **options):
    """Attribute with "auto" as float32 for one image; refuse "auto" for more images."""
    if precision == "auto":
        assert len(batch["gt"]["lq"]) == 1
        precision = "fp32"
    return attribute(baseline, target, batch, precision=precision, **options)


def test_one_precision_is_settled_for_all(quick_processes):
    nets, (x, gt) = pair(), images(5)
    parts = [Batch({"lq": x[:3]}, {"lq": gt[:3]}), Batch({"lq": x[3:]}, {"lq": gt[3:]})]
    pool = Devices(known_devices(CPUS), *nets, told_precision, {"steps": 2})
    pool.settle = True  # the default on GPUs
    with pool:
        results = list(pool.map(parts))
    assert [part.images for part in results] == [1, 2, 2]
    assert {part.precision for part in results} == {"fp32"}
    expected = attribute(*nets, (x, gt), steps=2, precision="fp32")
    same_scores(results[0].merge(results[1:]), expected, rtol=1e-4)


def test_the_command_line_spreads_images(here, capsys, quick_processes):
    argv = command(here, *RECIPES)
    assert main([*argv, "--devices", *CPUS]) == 0
    plain = here.parent / "plain"
    argv[argv.index(str(here))] = str(plain)
    assert main(argv) == 0
    same(load(here), load(plain))
    argv[argv.index(str(plain))] = str(here.parent / "rival")
    assert main([*argv, "--method", "gradient", "--devices", "cpu"]) == 0
    capsys.readouterr()
    assert main([*argv, "--devices", "cpu", "meta"]) == 1
    assert "devices is ['cpu', 'meta']; expected some, all of one type" in one_line(capsys)


def test_interrupted_on_devices_the_rest_is_done(here, monkeypatch, capsys, quick_processes):
    argv = [*command(here, *RECIPES), "--devices", "cpu"]
    original = Devices.map

    def stops(self, parts):
        yield next(original(self, parts))
        raise KeyboardInterrupt

    monkeypatch.setattr(Devices, "map", stops)
    assert main(argv) == 130 and "1 of 3 images finished" in capsys.readouterr().err
    monkeypatch.setattr(Devices, "map", original)
    assert main(argv) == 0
    assert load(here).images == 3


def test_a_bad_batch_ends_the_processes(quick_processes):
    x, gt = images(2)
    with pytest.raises(ValueError, match="holds values that are not finite"):
        attribute(*pair(), [(x, gt), (x * torch.inf, gt)], devices=["cpu"], steps=1)


def test_sizes_of_shares():
    from faigfast.backend.gpu.devices import _shares

    x, gt = images(5)
    shares = partial(_shares, [Batch({"lq": x}, {"lq": gt})])
    assert [part.images for part in shares(2)] == [2, 3]
    assert [part.images for part in shares(8)] == [1] * 5
    part = next(shares(5))
    assert part.lq["lq"].untyped_storage().nbytes() == x[0].numel() * 8
