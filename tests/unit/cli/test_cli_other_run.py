"""Folders of other runs are refused by option; interrupts say what is kept."""

import re

import pytest
from cases import command_line, findings
from cases.command_line import RECIPES, attribute, one_line
from cases.findings import words

from faigfast.cli.interruption import AGAIN, kept_text
from faigfast.cli.main import main
from faigfast.cli.options import COMMANDS
from faigfast.cli.other_run import RECORD, name_options, remember, value_text

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
photographs = findings.photographs
pytestmark = pytest.mark.usefixtures("undrawn")


def refusal(folder, change):
    remedy = "choose another folder, or add --overwrite"
    return f"faigfast: error: {folder} holds the results of another run: {change}; {remedy}\n"


# Other runs


@pytest.mark.parametrize(
    ("more", "change"),
    [
        (["--crop", "48"], "--crop was 24, is 48"),
        (["--seed", "1", "--crop", "48"], "--seed was 0, is 1, --crop was 24, is 48"),
        (["--attributed", "2", "--heads", "1"], "--attributed was 4, is 2"),
        (["--degrade", "blur=3"], "--degrade was blur=2 noise=0.1, is blur=3"),
        (["--objective", "ssim"], "--objective was squared_error, is ssim"),
        (["--pad", "1"], "--pad was 0, is 1"),
    ],
)
def test_a_study_names_the_options_and_both_values(here, files, capsys, more, change):
    assert main(words("distribution", here)) == 0
    capsys.readouterr()
    argv = [
        w for w in words("distribution", here) if w not in ("--crop", "24") or "--crop" not in more
    ]
    assert main([*argv, *more]) == 1
    assert one_line(capsys) == refusal(here / "parts", change)


def test_exchanged_checkpoints_are_named(here, files, capsys):
    assert main(words("distribution", here)) == 0
    argv = words("distribution", here)
    argv[1:3] = argv[2], argv[1]
    capsys.readouterr()
    assert main(argv) == 1
    change = "baseline was a.pth, is b.safetensors, target was b.safetensors, is a.pth"
    assert one_line(capsys) == refusal(here / "parts", change)


@pytest.mark.parametrize(
    ("more", "change"),
    [
        (["--steps", "3"], "--steps was 2, is 3"),
        (["--rule", "left"], "--rule was averaged, is left"),
        (
            ["--degrade", "blur=2", "noise=0.1"],
            "--degrade was blur=1 noise=0.1, is blur=2 noise=0.1",
        ),
        (["--crop-to", "2"], "--crop-to was 1, is 2"),
        (["--parameters", "x*", "y"], "--parameters was not given, is 'x*' y"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_attribute_names_the_options(here, files, capsys, monkeypatch, more, change, finished):
    if not finished:
        monkeypatch.setattr("faigfast.cli.attribute.write_files", interrupt)
    assert main(attribute(here, *RECIPES)) == (0 if finished else 130)
    capsys.readouterr()
    assert main([*attribute(here, *RECIPES), *more]) == 1
    assert one_line(capsys) == refusal(here if finished else here / "parts", change)


def test_changed_weights_under_the_same_options_are_named(here, files, capsys):
    own = here.parent / "own.pth"
    own.write_bytes((files / "a.pth").read_bytes())
    argv = attribute(here, *RECIPES)
    argv[1] = str(own)
    assert main(argv) == 0
    own.write_bytes((files / "a.pth").read_bytes() + b"\0")
    capsys.readouterr()
    assert main(argv) == 1
    assert "another run: the weights of the baseline have changed; " in one_line(capsys)


def test_without_kept_options_the_identities_speak():
    start = "out holds the results of another run:"
    end = "; choose another folder, or add --overwrite"
    options = {"steps": 3, "rate": 0.1, "output": "out", "learn": object()}
    for said, reworded in (
        ("steps was 2 and is 3", "--steps was 2, is 3"),
        ("steps was None and is 3", "--steps was not given, is 3"),
        ("learning_rate was 0.1 and is 0.001", "--rate was 0.1, is 0.001"),
        ("faigfast was '0.1' and is '0.2'", "faigfast was 0.1, is 0.2"),
        (
            "measured was 'ab12' and is 'cd34'",
            "the photographs, or how they are read, have changed",
        ),
        ("photographs was 'ab12' and is 'cd34'", "the photographs have changed"),
        ("photographs.a b.png was [1] and is None", "image 'a b.png' is missing"),
        ("images.a.lq.blur was '1' and is '2'", "image 'a' is another one"),
    ):
        assert name_options(f"{start} {said}{end}", options) == f"{start} {reworded}{end}"
    assert name_options("another message", options) == "another message"
    assert name_options(f"{start} steps was 2 and is 3{end}", None).endswith(f"2 and is 3{end}")


def test_damaged_kept_options_are_passed_over(tmp_path):
    message = (
        f"{tmp_path} holds the results of another run: crop was 1 and is 2; choose another folder, "
        "or add --overwrite"
    )
    for content in ("{", "[]", "null", '{"crop": 3}'):
        (tmp_path / RECORD).write_text(content)
        was = 3 if "3" in content else 1
        assert f"--crop was {was}, is 2" in name_options(message, {"crop": 2})


def test_options_are_kept_for_the_run_that_has_parts(tmp_path):
    folder = tmp_path / "parts"
    remember(folder, {"crop": 1, "quiet": True}, overwrite=False)
    first = (folder / RECORD).read_text()
    assert '"crop"' in first and "quiet" not in first
    (folder / "one.part").touch()
    remember(folder, {"crop": 2}, overwrite=False)
    assert (folder / RECORD).read_text() == first
    remember(folder, {"crop": 2}, overwrite=True)
    assert (folder / RECORD).read_text() != first


def test_values_are_written_as_they_are_typed():
    values = (1e-3, True, False, [], ["a b", 2.0], {"channels": 3}, "x*")
    texts = ["0.001", "given", "not given", "not given", "'a b' 2", '{"channels": 3}', "'x*'"]
    assert [value_text(value) for value in values] == texts


# Interrupts


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_of_every_command_says_what_is_kept(
    files, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("faigfast.cli.main.import_module", interrupt)
    argv = {
        "attribute": ["a", "b", "--gt", "g", "--degrade", "blur=1"],
        "baseline": ["a"],
        "train": [],
        "sweep": ["plan.yaml", "out"],
    }.get(command, [])
    without = ("bench", "accuracy", "doctor", "style", "sweep")
    file = ["--output", "out"] if command not in without else []
    assert main([command, *argv, *file]) == 130
    assert capsys.readouterr().err == f"faigfast: interrupted: {AGAIN}\n"
    folder = tmp_path / ("out.state" if command == "baseline" else "out")
    for part in ("parts/one.part", "parts/two.part", "state.part", "blur-all/state.part"):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    assert main([command, *argv, *file]) == 130
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.startswith("faigfast: interrupted: ")
    if command in ("demo", *without):
        assert AGAIN in text
    else:
        name = folder.name
        assert f"kept: 2 parts in {name}/parts and the last saved state of 2 trainings in" in text
        assert f"{name}, {name}/blur-all; the same command goes on from there" in text


def test_an_interrupted_study_counts_its_parts(here, files, capsys, monkeypatch):
    monkeypatch.setattr("faigfast.cli.distribution.publish", interrupt)
    assert main(words("distribution", here)) == 130
    parts = len(list((here / "parts").glob("*.part")))
    said = capsys.readouterr().err
    assert re.fullmatch(rf"faigfast: interrupted: kept: {parts} parts? in .*/parts; .*\n", said)


def test_an_interrupt_before_the_options_are_read(capsys, monkeypatch):
    monkeypatch.setattr("faigfast.cli.main.build_parser", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "faigfast: interrupted: nothing was begun\n"


def test_one_part_is_no_plural(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.part").touch()
    options = type("Options", (), {"output": str(tmp_path)})
    assert kept_text("mask", options).startswith("kept: 1 part in ")


def test_finished_pairs_of_a_benchmark_are_kept():
    options = type("Options", (), {"output": "race.json"})
    assert kept_text("bench", options) == AGAIN
    options.finished_pairs = 2
    assert kept_text("bench", options).startswith("kept: 2 pairs in race.json; ")
