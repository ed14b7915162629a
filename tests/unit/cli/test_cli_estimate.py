"""The time of a command, said before its long part; remarks and tables that fit."""

import re
from types import SimpleNamespace

import pytest
from cases import command_line, findings
from cases.analysis import study_parts  # noqa: F401
from cases.findings import words

from faigfast.analysis import measure
from faigfast.analysis.baselines import METHODS
from faigfast.analysis.study import Study
from faigfast.cli import estimate, workload
from faigfast.cli.estimate import count_masked, fewer_iterations
from faigfast.cli.main import main
from faigfast.cli.workload import announcement

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
photographs = findings.photographs
pytestmark = pytest.mark.usefixtures("undrawn")
MASK = ["--fractions", "0.2", "--methods", "faig", "change", "--metrics", "psnr"]
ESTIMATE = re.compile(r"^faigfast: (\d+ .*), about (\d+ s|\d+ min|[\d.]+ h)(; `(.+)` is quicker)?$")


def loud(argv):
    return [word for word in argv if word != "--quiet"]


@pytest.fixture
def long(monkeypatch):
    """Every command counts as long."""
    for module in (workload, estimate):
        monkeypatch.setattr(module, "LONG", 0.0)
    monkeypatch.setattr(workload, "QUICKER", 0.0)


def estimates(capsys):
    err = capsys.readouterr().err
    return [match.groups() for line in err.splitlines() if (match := ESTIMATE.match(line))]


@pytest.mark.parametrize(
    ("methods", "by"),
    [
        (["faig", "change"], "kernel"),
        (["faig"], "layer"),
        (["change", "random"], "channel"),
        (["random"], "kernel"),
        ([*METHODS], "kernel"),
    ],
)
def test_the_networks_of_masking_are_counted(here, files, monkeypatch, methods, by):
    counts = []
    original = measure.measure_all

    def counting(networks, *args, **options):
        counts.append(len(networks))
        return original(networks, *args, **options)

    monkeypatch.setattr("faigfast.analysis.masking.measure_all", counting)
    argv = words("mask", here, "--metrics", "psnr", "--fractions", "0.2", "0.4", "--by", by)
    assert main([*argv, "--measured", "9", "--methods", *methods]) == 0
    expected = count_masked(methods, 2, 2, by)
    # Sets that are equal are one network, as of whole layers.
    assert counts[0] <= expected
    if by == "kernel":
        assert counts[0] >= expected - 2 * 2


def test_mask_says_how_long_it_takes(here, files, capsys, long):
    argv = words("mask", here, *MASK)
    assert main(loud(argv)) == 0
    ((counts, _, _, quicker),) = estimates(capsys)
    assert counts == f"{count_masked(['faig', 'change'], 2, 1)} networks"
    assert quicker in ("--measured 4", "--attributed 16")
    assert main(loud(argv)) == 0
    assert re.search(r"from the start, less \d+ finished part", capsys.readouterr().err)
    assert main(argv) == 0
    assert capsys.readouterr().err == ""


def test_a_short_command_says_nothing(here, files, capsys):
    assert main(loud(words("mask", here, *MASK, "--measured", "9"))) == 0
    assert "about" not in capsys.readouterr().err.replace("left", "")


def test_retrain_baseline_and_dial_say_how_long_they_take(here, files, capsys, long):
    argv = words("retrain", here, "--train", "others", "--iterations", "2", "--patch", "8")
    assert main(loud([*argv, "--degrade", "noise=0.1", "blur=1"])) == 0
    ((counts, _, _, quicker),) = estimates(capsys)
    assert (counts, quicker) == ("8 × 2 iterations, 10 networks", "--iterations 1")

    argv = ["baseline", "b.safetensors", "--output", str(here.with_name("c.safetensors"))]
    assert main([*argv, "--gt", "photos", "--patch", "8", "--iterations", "3"]) == 0
    ((counts, _, _, quicker),) = estimates(capsys)
    assert (counts, quicker) == ("3 iterations", "--iterations 1")

    argv = ["dial", "b.safetensors", "--gt", "photos", "--output", str(here.with_name("dial"))]
    argv += ["--crop", "24", "--steps", "2", "--iterations", "2", "--degrade", "noise=0.1"]
    main(argv)  # such a pair may have no gain
    assert estimates(capsys)[0][0] == "2 iterations"
    main([*argv, "--overwrite", "--baseline", "a.pth", "--strengths", "0"])
    ((counts, *_),) = estimates(capsys)
    assert counts == "13 networks"  # 7 to choose; target, interpolation, dial, random ones


def test_report_says_how_long_it_takes(here, files, capsys, monkeypatch, long):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("faigfast.cli.report.write_full_report", stop)
    assert (
        main(loud(words("report", here, "--train", "others", "--degrade", "noise=0.1", "blur=1")))
        == 130
    )
    ((counts, _, _, _),) = estimates(capsys)
    assert re.fullmatch(r"8 × 150 iterations, \d+ networks", counts)


def test_demo_says_how_long_it_takes(capsys, monkeypatch, tmp_path, one_thread):
    monkeypatch.setattr(workload, "TIMED", 1)
    monkeypatch.setattr(workload, "LONG", 0.0)
    options = SimpleNamespace(output=str(tmp_path), steps=20, quiet=False)
    estimate.announce_demo(options)
    ((counts, *_),) = estimates(capsys)
    assert counts == "46 networks"
    options.quiet = True
    estimate.announce_demo(options)
    assert capsys.readouterr().err == ""


def test_the_remark():
    assert announcement(["22 networks"], 240, "--measured 4") == (
        "22 networks, about 4 min; `--measured 4` is quicker"
    )
    assert announcement(["22 networks"], 20, "--measured 4") == "22 networks, about 20 s"
    assert announcement(["22 networks"], 240, "") == "22 networks, about 4 min"
    assert [fewer_iterations(n) for n in (1, 150, 500, 3000)] == [1, 50, 100, 1000]


# Remarks and tables


@pytest.fixture
def scores(here, files, tmp_path):
    """Scores of `faigfast attribute`, given to the analysis commands."""
    folder = tmp_path / "scores"
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", "photos", "--output", str(folder)]
    assert main([*argv, "--degrade", "blur=2", "noise=0.1", "--steps", "2", "--quiet"]) == 0
    return ["--attribution", str(folder / "scores.safetensors")]


@pytest.mark.parametrize(
    ("command", "more", "rivals"),
    [
        ("mask", ["--methods", "faig", "--metrics", "psnr", "--fractions", "0.2"], False),
        ("mask", ["--methods", "faig", "change", "--metrics", "psnr", "--fractions", "0.2"], False),
        ("mask", ["--methods", "faig", "signed", "--metrics", "psnr", "--fractions", "0.2"], True),
        ("distribution", [], False),
        ("overlap", [], False),
        ("modulate", ["--strengths", "0", "1"], False),
    ],
)
def test_rivals_are_remarked_on_only_where_there_are_some(
    here, files, scores, capsys, command, more, rivals
):
    capsys.readouterr()
    assert main([*words(command, here, *more), *scores]) == 0
    assert ("rivals with gradients" in capsys.readouterr().out) is rivals


@pytest.mark.parametrize("command", ["mask", "modulate", "overlap", "locations", "prune"])
def test_tables_fit_100_columns(here, files, capsys, command):
    degradations = ["a-rather-long-name=noise=0.1", "blur+and+more=blur=1", "clean"]
    assert main([*words(command, here), "--degrade", *degradations]) == 0
    out = capsys.readouterr().out.splitlines()
    rules = [n for n, row in enumerate(out) if re.fullmatch("-{8,}", row)]
    assert rules
    for n in rules:
        assert max(len(row) for row in out[n - 1 : n + 3]) <= 100


def test_the_time_of_a_ranking_leaves_out_the_fixed_time_of_a_call(study_parts, monkeypatch):  # noqa: F811
    nets, attributed, kept, _ = study_parts
    study = Study(*nets, attributed, kept, 2, steps=10, options={"backend": "torch"})
    calls = []
    monkeypatch.setattr(
        workload.faigfast, "attribute", lambda *args, **options: calls.append((args, options))
    )
    ticks = iter([0.0, 2.0, 2.0, 12.0])  # 2 s with one point, 10 s with more
    work = workload.Workload(nets[1], kept)
    work.restoration = 0.001
    monkeypatch.setattr(workload.time, "perf_counter", lambda: next(ticks))
    work.attribute(study, attributed)
    work.attribute(study, attributed)  # measured once
    points = workload.CALIBRATED
    assert [options for _, options in calls] == [
        {"steps": steps, "backend": "torch"} for steps in (1, 1, 1 + points)
    ]
    assert all(args[:2] == nets for args, _ in calls)
    point = 8.0 / points / len(calls[0][0][2][0])
    images = len(attributed.names) * len(attributed.lq)
    assert work.attribution == pytest.approx(2 * (2.0 + images * 10 * point))
