"""The folder of a run of `faigfast attribute`: what goes on, is refused, replaced or left alone."""

import json

import pytest
from cases import command_line
from cases.command_line import RECIPES, attribute, expected, load, one_line, recipes, same
from safetensors import SafetensorError

import faigfast
from faigfast.cli.main import main
from faigfast.io.lock import alone_in

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


@pytest.fixture
def count(monkeypatch):
    """Calls of an Attributor; set `stop` to be interrupted in that one."""
    calls = type("Calls", (), {"n": 0, "stop": None})()
    original = faigfast.Attributor.__call__

    def counting(*args):
        calls.n += 1
        if calls.n == calls.stop:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(faigfast.Attributor, "__call__", counting)
    return calls


def test_an_interrupted_run_goes_on(here, count, capsys):
    argv = attribute(here, *RECIPES)
    argv.remove("--quiet")
    count.stop = 2
    assert main(argv) == 130
    assert capsys.readouterr().err.endswith(
        "\nfaigfast: interrupted: 1 of 3 images finished; the same command goes on with the rest\n"
    )
    assert [p.name for p in here.iterdir()] == ["parts"]
    assert sorted(p.name for p in (here / "parts").iterdir()) == [
        "000000.part",
        "options.json",
        "run.json",
    ]
    count.n, count.stop = 0, None
    assert main([*argv, "--steps", "3"]) == 1  # another run does not touch it
    assert "--steps was 2, is 3" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0  # which removes another run's results only
    assert count.n == 2
    assert "going on: 1 of 3" in capsys.readouterr().err
    assert not (here / "parts").exists()
    same(load(here), expected(recipes()))
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["time"]["images_computed"] == 2
    for n in range(8):  # as in one go, in whatever order a file names things
        uninterrupted = here.parent / str(n)
        assert main(attribute(uninterrupted, *RECIPES)) == 0
        other = json.loads((uninterrupted / "manifest.json").read_text())
        assert other["scores_sha256"] == manifest["scores_sha256"]


def test_a_finished_run_is_not_computed_again(here, count, capsys):
    assert main(attribute(here, *RECIPES)) == 0
    before = json.loads((here / "manifest.json").read_text())
    first = capsys.readouterr().out
    count.n = 0
    assert main(attribute(here, "--top", "0.25", "--degrade", *RECIPES)) == 0
    assert count.n == 0
    assert capsys.readouterr().out.splitlines()[:3] == first.splitlines()[:3]
    after = json.loads((here / "manifest.json").read_text())
    assert after["time"] == before["time"] and after["made_from"] == before["made_from"]
    assert (here / "blur_top_0.25_index.txt").exists()
    assert not (here / "blur_top_0.01_index.txt").exists()
    assert not (here / "parts").exists()
    assert main(attribute(here, "--overwrite", "--degrade", *RECIPES)) == 0
    assert count.n == 3  # unless told
    again = json.loads((here / "manifest.json").read_text())
    assert again["scores_sha256"] == before["scores_sha256"]
    assert again["time"]["images_computed"] == 3 and not (here / "parts").exists()


def test_another_run_is_refused_unless_told(here, files, capsys):
    assert main(attribute(here, *RECIPES)) == 0
    (here / "diary.txt").write_text("mine")
    for words, change in (
        (("noise=0.2", "blur=1"), "--degrade was blur=1 noise=0.1, is noise=0.2 blur=1"),
        (("--seed", "1", "--degrade", *RECIPES), "--seed was 0, is 1"),
    ):
        capsys.readouterr()
        assert main(attribute(here, *words)) == 1
        assert change in one_line(capsys)
    assert main(attribute(here, "--overwrite", "--degrade", "clean")) == 0
    names = {path.name for path in here.iterdir()}
    assert names == {
        "clean_index.txt",
        "clean_top_0.01_index.txt",
        "diary.txt",
        "filters.columns.json",
        "filters.csv",
        "manifest.json",
        "scores.safetensors",
    }


def test_files_of_an_unknown_run_are_refused(here, capsys):
    here.mkdir()
    (here / "scores.safetensors").write_bytes(b"somebody's")
    assert main(attribute(here, *RECIPES)) == 1
    assert "scores.safetensors without its manifest.json" in one_line(capsys)
    (here / "manifest.json").write_text("{")
    (here / "other_index.txt").write_text("theirs")
    assert main(attribute(here, *RECIPES)) == 1
    assert "manifest.json is not of faigfast attribute; choose another" in one_line(capsys)
    assert (here / "scores.safetensors").read_bytes() == b"somebody's"
    assert main(attribute(here, "--overwrite", "--degrade", *RECIPES)) == 0
    assert load(here).images == 3
    assert (here / "other_index.txt").read_text() == "theirs"


def test_files_beside_the_results_stay(here):
    (here / "parts").mkdir(parents=True)
    for name in ("mine.png", "parts/precious.safetensors"):
        (here / name).write_text("mine")
    assert main(attribute(here, *RECIPES)) == 0
    assert main(attribute(here, "--overwrite", "--steps", "3", "--degrade", *RECIPES)) == 0
    assert {(here / name).read_text() for name in ("mine.png", "parts/precious.safetensors")} == {
        "mine"
    }


def test_scores_that_are_not_the_runs_are_computed_again_when_asked(here, capsys):
    assert main(attribute(here, *RECIPES)) == 0
    scores = load(here)
    (here / "scores.safetensors").write_bytes(b"another's")
    capsys.readouterr()
    assert main(attribute(here, *RECIPES)) == 1
    assert "is missing or is not what was computed" in one_line(capsys)
    assert main(attribute(here, "--overwrite", "--degrade", *RECIPES)) == 0
    same(load(here), scores)


def test_images_without_their_run_are_refused(here, capsys):
    (here / "parts").mkdir(parents=True)
    (here / "parts" / "000000.part").write_bytes(b"")
    assert main(attribute(here, *RECIPES)) == 1
    assert "files without their run.json" in one_line(capsys)


def test_one_process_in_a_folder(here, capsys):
    here.mkdir()
    with alone_in(here):
        assert main(attribute(here, *RECIPES)) == 1
    assert "in use by another" in one_line(capsys)
    assert main(attribute(here, *RECIPES)) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--rule", "lft"),
        ("--steps", "0"),
        ("--rule", "midpoint", "--emulate"),
        ("--objective", "l3"),
        ("--backend", "abacus"),
        ("--precision", "fp8"),
    ],
)
def test_a_typo_leaves_nothing(here, words):
    assert main(attribute(here, *words, "--degrade", "blur=1")) == 1
    assert not here.exists()


@pytest.mark.parametrize("made_before", [False, True])
def test_a_refused_run_leaves_no_empty_folder_of_its_own(here, capsys, made_before):
    if made_before:
        here.mkdir()
    words = ("--parameters", "bdy.*", "--degrade", "blur=1")  # refused after the folder is made
    assert main(attribute(here, *words)) == 1
    assert here.exists() == made_before
    nested = here / "a" / "b"
    assert main(attribute(here, *words, "--output", str(nested))) == 1
    assert not nested.parent.exists() and here.exists() == made_before


def test_a_run_that_failed_before_its_first_image_does_not_hold_the_folder(here, capsys):
    assert main(attribute(here, "--parameters", "bdy.*", "--degrade", "blur=1")) == 1
    assert not (here / "parts").exists()
    assert main(attribute(here, "--parameters", "body.*", "--degrade", "blur=1")) == 0
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["made_from"]["parameters"] == ["body.*"]


def test_output_that_cannot_be_written_is_found_before_computing(here, count, capsys):
    here.write_text("a file")
    for output in (here, here / "inside"):
        assert main(attribute(output, *RECIPES)) == 1
        assert f"--output {output} cannot be written" in one_line(capsys)
    assert count.n == 0


def test_names_that_write_one_file_are_refused_at_the_start(here, capsys):
    words = ("a=blur=1", "a_top_0.01=noise=0.1")
    assert main(attribute(here, *words)) == 1
    assert "two degradations write the file 'a_top_0.01_index.txt'" in one_line(capsys)
    assert main(attribute(here, f"{'a' * 250}=blur=1")) == 1
    assert "has a long name" in one_line(capsys)
    assert not here.exists()


def test_an_index_file_of_others_is_not_replaced(here, capsys):
    here.mkdir()
    (here / "blur_index.txt").write_text("theirs")
    assert main(attribute(here, *RECIPES)) == 1
    assert "blur_index.txt without its manifest.json" in one_line(capsys)
    assert (here / "blur_index.txt").read_text() == "theirs"
    assert main(attribute(here, "--overwrite", "--degrade", *RECIPES)) == 0
    (here / "blur_top_0.25_index.txt").write_text("theirs")
    capsys.readouterr()
    assert main(attribute(here, "--top", "0.25", "--degrade", *RECIPES)) == 1
    assert "blur_top_0.25_index.txt of another program" in one_line(capsys)


def test_an_empty_output_and_parts_as_a_link_are_refused(here, capsys):
    assert main(attribute("", *RECIPES)) == 1
    assert "--output is empty" in one_line(capsys)
    here.mkdir()
    (here / "parts").symlink_to(here.parent)
    assert main(attribute(here, *RECIPES)) == 1
    assert "parts as a file or a link" in one_line(capsys)


def test_words_that_are_not_utf8_are_refused(here, capsys):
    assert main(attribute(here, "--degrade", "\udcff=blur=1")) == 1
    assert "is not valid UTF-8" in one_line(capsys)


def test_a_disk_that_is_full_is_named_with_its_path(here, capsys, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("faigfast.io.tensor_file.save_file", full)
        assert main(attribute(here, *RECIPES)) == 1
    message = one_line(capsys)
    assert "000000.part cannot be written: No space left on device" in message
    assert "os error" not in message
    assert main(attribute(here, *RECIPES)) == 0


def test_temporary_files_of_killed_runs_are_removed(here):
    (here / "parts").mkdir(parents=True)
    (here / "deeper" / "still").mkdir(parents=True)
    for folder in (here, here / "parts", here / "deeper" / "still"):
        (folder / ".faigfast-abc.part").write_bytes(b"half")
    assert main(attribute(here, *RECIPES)) == 0
    assert not (here / "parts").exists() and not list(here.rglob(".*"))
