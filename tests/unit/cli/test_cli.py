import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cases import command_line
from cases.command_line import RECIPES, attribute, expected, load, one_line, recipes

import faigfast
from faigfast.cli.main import main

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gt", "nowhere", "--degrade", "blur=1"], "there is no gt folder nowhere"),
        (["--degrade", "fog=1"], "degradation 'fog=1' is unknown"),
        (["--degrade", "blur=-1"], "blur is -1.0"),
        (["--degrade", "blur=1", "blur=2"], "names 'blur' twice"),
        (["--degrade", "x=fog=1"], "degradation 'fog=1' is unknown"),
        (["--degrade", "a/b=blur=1"], "has the name 'a/b'"),
        (["--lq", "x=nowhere"], "there is no lq folder 'x' nowhere"),
        (["--lq", "x=soft", "--degrade", "blur=1"], "both of --lq and --degrade"),
        ([], "neither of --lq and --degrade"),
        (["--lq", "soft", "--scale", "3"], "expected a ratio of 3"),
        (["--degrade", "blur=1", "--scale", "0"], "scale is 0"),
        (["--degrade", "blur=1", "--seed", "-1"], "seed is -1"),
        (["--degrade", "blur=1", "--top", "1.5"], "top is 1.5"),
        (["--degrade", "blur=1", "--rule", "simpson"], "rule is 'simpson'"),
        (["--degrade", "blur=1", "--steps", "0"], "steps is 0"),
        (["--degrade", "blur=1", "--objective", "l3"], "objective is 'l3'"),
        (["--degrade", "blur=1", "--backend", "abacus"], "backend is 'abacus'"),
        (["--degrade", "blur=1", "--precision", "fp8"], "precision is 'fp8'"),
        (["--degrade", "blur=1", "--memory", "-5"], "memory is -5"),
        (["--degrade", "blur=1", "--parameters", "x*"], "matches no convolution weight"),
        (["--degrade", "blur=1", "--rule", "midpoint", "--emulate"], "emulate"),
    ],
)
def test_errors_are_one_line(here, capsys, words, message):
    base = ["attribute", "a.pth", "b.safetensors", "--gt", "gt", "--output", str(here), "--quiet"]
    assert main([*base, *words]) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.safetensors")) and not list(here.glob("parts/*.part"))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["absent.pth", "a.pth"], "there is no file absent.pth"),
        (["gt", "a.pth"], "gt is a folder"),
        (["mine.py", "a.pth"], "as neither a PyTorch nor a safetensors file does"),
        (["a.pth", "a.pth"], "identical"),
    ],
)
def test_bad_checkpoints(here, capsys, pair, message):
    argv = ["attribute", *pair, "--gt", "gt", "--degrade", "blur=1", "--output", str(here)]
    assert main([*argv, "--quiet"]) == 1
    assert message in one_line(capsys)


def test_an_error_names_the_image(here, capsys, monkeypatch):
    original = faigfast.Attributor.__call__
    calls = []

    def failing(attributor, batch):
        calls.append(batch)
        if len(calls) == 3:
            batch["gt"] = batch["gt"][..., 1:]
        return original(attributor, batch)

    monkeypatch.setattr(faigfast.Attributor, "__call__", failing)
    assert main(attribute(here, *RECIPES)) == 1
    assert "degradation 'blur', image 'image2': gt does not fit" in one_line(capsys)
    assert len(list((here / "parts").glob("*.part"))) == 2  # the others are kept


def test_debug_shows_the_traceback(here, capsys):
    assert main(attribute(here, "--debug", "--degrade", "fog=1")) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "ValueError: degradation 'fog=1' is unknown" in err


def test_a_mistake_of_ours_points_to_debug(here, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(faigfast, "load_pair", broken)
    assert main(attribute(here, *RECIPES)) == 1
    assert "RuntimeError: two lines (--debug shows where)" in one_line(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "command"),
        (["dance"], "there is no command 'dance'; expected one of attribute, "),
        (["attribute", "a.pth"], "--gt and --output are missing"),
        (["attribute", "a", "b", "--gt", "g", "--output", "o", "--steps", "x"], "steps"),
        (["attribute", "a", "b", "--gt", "g", "--output", "o", "--nope"], "--nope"),
        (["attribute", "a", "b", "--gt", "g", "--output", "o", "--config"], "--config"),
        (["doctor", "--config", "absent.yaml"], "absent.yaml"),
        (["train", "--output", "o", "--network", "vgg"], "vgg"),
    ],
)
def test_wrong_arguments_end_with_2(capsys, argv, message):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert message in one_line(capsys)


def test_help_and_version(capsys):
    for argv, text in (
        (["--version"], f"faigfast {faigfast.__version__}\n"),
        (["--help"], "doctor"),
        (["attribute", "--help"], "--degrade"),
    ):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0
        assert text in capsys.readouterr().out


def test_without_jsonargparse_one_line_says_what_to_install(capsys, monkeypatch):
    from faigfast.__main__ import main as start

    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    for name in ("main", "parser", "help_format"):
        monkeypatch.delitem(sys.modules, f"faigfast.cli.{name}")
    assert start() == 2
    assert "needs jsonargparse: pip install 'faigfast[cli]'" in one_line(capsys)


# demo, bench, doctor


def test_demo_passes_its_options_on(here, monkeypatch):
    seen = []
    monkeypatch.setattr("faigfast.analysis.demo.run_demo", lambda *a, **o: seen.append((a, o)))
    sys.modules.pop("faigfast.cli.demo", None)
    assert main(["demo", "--output", str(here), "--steps", "3"]) == 0
    ((positional, options),) = seen
    assert positional == (here,) and not options.pop("figures").formats
    assert options == {"steps": 3, "progress": True}
    sys.modules.pop("faigfast.cli.demo", None)


def test_bench_prints_and_saves(here, monkeypatch, capsys):
    import faigfast.cli.bench as command

    quick = functools.partial(command.benchmark, memory=False)
    monkeypatch.setattr(command, "benchmark", quick)
    argv = ["bench", "--workloads", "tiny-8x1", "--contenders", "loop", "--repeats", "1"]
    file = here / "figures.json"
    assert main([*argv, "--steps", "2", "--quiet", "--output", str(file)]) == 0
    out = capsys.readouterr().out
    figures = json.loads(file.read_text())
    assert figures["sections"][0]["points"] == 2
    assert figures["command"][:2] == ["faigfast", "bench"]
    assert "tiny-8x1" in out and "loop" in out
    assert main(["bench", "--workloads", "nope", "--quiet"]) == 1
    assert "workload is 'nope'" in one_line(capsys)
    assert main([*argv, "--output", str(here)]) == 1
    assert "is a folder" in one_line(capsys)


def test_doctor_says_what_is_here(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["versions"]["torch"] == torch.__version__
    assert described["backends"]["reference"].startswith("yes")
    assert described["backends"]["cuda"].startswith("no: ")
    assert described["machine"]["threads"] == torch.get_num_threads()
    assert (
        set(described["GPU"]) - {"none"} if torch.cuda.is_available() else described["GPU"]["none"]
    )
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(title in text for title in described)


def test_doctor_says_why_something_is_missing(capsys, monkeypatch):
    import faigfast.cli.doctor as command

    version = command._version
    monkeypatch.setattr(command, "_version", lambda n: None if n == "pandas" else version(n))
    monkeypatch.setattr(command._extension, "module", None)
    monkeypatch.setattr(command._extension, "missing", "no compiler was found")
    assert main(["doctor", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["optional packages"]["pandas"] == (
        "missing: tables; pip install 'faigfast[report]'"
    )
    assert described["extension"]["state"] == "missing: no compiler was found"


@pytest.mark.skipif(faigfast.backend.cpu.extension.module is None, reason="no extension is built")
def test_doctor_survives_a_wrong_instruction_set(capsys, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", "mmx")
    assert main(["doctor", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert "mmx" in described["extension"]["problem"] and "mmx" in described["backends"]["problem"]
    assert "portable" in described["extension"]["usable here"]


# Processes


def obey_interrupts():
    """A suite in the background ignores SIGINT, and so would its processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


ONE_BY_ONE = """
import sys
from faigfast.__main__ import main
from faigfast.cli import reading
reading.IMAGES = 1
sys.exit(main())
"""


def start(*argv):
    """Start Python with these arguments."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    # As with `pip install -e .`: importable from every folder.
    root = str(Path(faigfast.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *argv]
    return subprocess.Popen(command, **pipes, env=environment, preexec_fn=obey_interrupts)


def test_a_process_that_is_interrupted_leaves_whole_files(here):
    argv = attribute(here, *RECIPES, steps=200)
    argv.remove("--quiet")
    process = start("-c", ONE_BY_ONE, *argv)
    deadline = time.monotonic() + 120
    while not list((here / "parts").glob("0*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and "Traceback" not in err
    last = err.splitlines()[-1]
    assert re.fullmatch(r"faigfast: interrupted: [123] of 3 images finished; the same .*", last)
    assert [path.name for path in here.iterdir()] == ["parts"]
    left = sorted(path.name for path in (here / "parts").iterdir())
    assert left[0] == "000000.part" and left[-2:] == ["options.json", "run.json"] and len(left) < 6
    for name in left[:-2]:
        assert faigfast.Attribution.load(here / "parts" / name).images == 1
    assert main(argv) == 0
    wanted = expected(recipes(), steps=200)
    for name in wanted.degradations:
        torch.testing.assert_close(load(here).scores(name), wanted.scores(name))


def test_an_interruption_while_a_progress_bar_is_made_says_one_line(here):
    argv = attribute(here, *RECIPES, steps=2)
    argv.remove("--quiet")
    script = f"""
import sys
from tqdm import tqdm
from faigfast.__main__ import main
def interrupt(*_):
    raise KeyboardInterrupt
tqdm._get_free_pos = interrupt
sys.argv = ["faigfast", *{argv!r}]
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, preexec_fn=obey_interrupts
    )
    assert (done.returncode, done.stdout) == (130, "")
    entry, cropped, interrupted = done.stderr.splitlines()
    assert entry == "faigfast: took params_ema of a.pth; passed over params"
    assert "cropped 3 of 3 images at the bottom" in cropped
    assert interrupted.startswith("faigfast: interrupted: 0 of 3 images finished")


def test_an_interruption_that_python_ignores_comes_again(here):
    script = f"""
import signal, sys
from faigfast.__main__ import main
from faigfast.cli import reading
from faigfast.io.parts import Parts
reading.IMAGES = 1
class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
save, saved = Parts.save, []
def save_and_drop(parts, name, *content):
    save(parts, name, *content)
    saved.append(name)
    if len(saved) == 1:
        Dropped()
Parts.save = save_and_drop
sys.argv = ["faigfast", *{attribute(here, *RECIPES, steps=2000)!r}]
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, preexec_fn=obey_interrupts
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert re.fullmatch("faigfast: interrupted: 1 of 3 images finished; .*\n", done.stderr)
    assert not (here / "out").exists() and len(list((here / "parts").glob("0*"))) == 1


def test_doctor_as_a_process_and_a_reader_that_goes_away():
    process = start("-m", "faigfast", "doctor")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert f"faigfast     {faigfast.__version__}" in out
    process = start("-m", "faigfast", "doctor")
    process.stdout.close()
    process.wait(timeout=120)
    assert (process.returncode, process.stderr.read()) == (141, "")
    process.stderr.close()
