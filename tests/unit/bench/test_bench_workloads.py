"""Workloads of many sizes, and of another package's networks."""

import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

from faigfast.bench import benchmark, rivals, runner, spandrel, workload
from faigfast.bench.families import FAMILIES
from faigfast.bench.first_run import first_run
from faigfast.bench.workloads import SIZES, Problem, forward_flops
from faigfast.cli.main import main

quick = partial(benchmark, steps=1, repeats=1, first=False, memory=False, progress=False)


def test_a_folder_has_images_of_many_sizes():
    chosen = workload("pair-folder")
    assert chosen.is_folder and len(set(chosen.sizes)) == len(chosen.sizes) == 14
    sides = [side for size in chosen.sizes for side in size]
    assert (min(sides), max(sides)) == (40, 96)
    assert sum(height > width for height, width in SIZES) == 7
    problem, again = chosen.problem(8), chosen.problem(8, 2)
    for size, x, gt in zip(SIZES, problem.x, problem.gt, strict=True):
        assert x.shape == (1, 3, *size) and gt.shape == (1, 3, 2 * size[0], 2 * size[1])
    assert len(again.x) == 2 and torch.equal(again.x[1], problem.x[1])
    work = sum(forward_flops(problem.target, x) for x in problem.x)
    assert problem.flops == 8 * 3 * work
    assert len(problem.batch) == 14 and problem.batch[3] == (problem.x[3], problem.gt[3])


@pytest.fixture
def small(monkeypatch):
    """Images of three sizes, two of them transposed versions of each other."""
    monkeypatch.setattr(sys.modules["faigfast.bench.workloads"], "SIZES", ((5, 8), (8, 5), (7, 6)))
    return workload("tiny-folder")


def test_everyone_computes_the_same_of_a_folder(small):
    assert str(small).endswith("3 images of 3 sizes, sides from 5 to 8")
    problem = small.problem(2).to(torch.float64)
    expected = runner.exact(problem)
    assert expected[0].shape == (3, 136)
    for name, prepare in rivals.contenders().items():
        if name == "compile":
            with pytest.raises(ValueError, match="3 sizes of images"):
                prepare(problem)
        else:
            assert max(runner.errors(prepare(problem)(), expected)) < 1e-12, name


def test_a_folder_is_timed(small):
    assert quick(["tiny-5x1"], contenders=["loop"]).sections[0].checked == "every image"
    report = quick([small.name], contenders=["authors", "loop", "compile", "faigfast"])
    (section,) = report.sections
    assert section.checked == "every image"
    assert "cannot run here: 3 sizes" in section.row("compile").reason
    assert all(section.row(name).seconds for name in ("authors", "loop", "faigfast"))


def test_of_a_large_folder_a_few_images_are_compared_and_nothing_is_scaled(monkeypatch):
    monkeypatch.setattr(runner, "LARGE", 0)
    chosen = ((4, 5), (5, 4), (6, 4), (4, 6))
    monkeypatch.setattr(sys.modules["faigfast.bench.workloads"], "SIZES", chosen)
    (section,) = quick(["tiny-folder"], contenders=["authors", "loop"]).sections
    assert section.checked == "first 3 images"
    assert all(row.seconds and not row.scaled for row in section.rows)


def test_work_is_counted_in_pixels():
    nets = nn.Identity(), nn.Identity()
    sizes = tuple(torch.zeros(1, 3, *size) for size in ((2, 3), (4, 5)))
    assert runner._work(Problem(*nets, sizes, sizes, 4)) == (6 + 20) * 14
    batch = torch.zeros(2, 3, 4, 5)
    assert runner._work(Problem(*nets, batch, batch, 4)) == 40 * 14


def test_swinir_is_the_published_lightweight_one():
    net = workload("swinir-8x1").problem(1).target
    assert sum(value.numel() for value in net.parameters()) == 910_152
    assert net.window == 8 and net.scale == 2


@pytest.mark.parametrize("family", spandrel.NETWORKS)
def test_a_missing_package_is_named(family, monkeypatch, capsys):
    monkeypatch.setattr(spandrel, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=f"'{family}-8x1' cannot run here: {family} needs spandrel"
    ):
        workload(f"{family}-8x1")
    with pytest.raises(ValueError, match="pip install --no-deps spandrel"):
        FAMILIES[family].pair()
    assert main(["bench", "--workloads", f"{family}-8x1", "--quiet"]) != 0
    assert "pip install --no-deps spandrel" in capsys.readouterr().err


def test_a_module_is_imported_without_its_package(tmp_path, monkeypatch):
    folder = tmp_path / "outer_package" / "inner"
    folder.mkdir(parents=True)
    for place in (folder.parent, folder):
        (place / "__init__.py").write_text("import not_installed_here")
    (folder / "net.py").write_text("from .other import value\n")
    (folder / "other.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    net = spandrel._import_alone("outer_package.inner.net")
    assert isinstance(net, ModuleType) and net.value == 3
    assert not {"outer_package", "outer_package.inner"} & sys.modules.keys()
    with pytest.raises(ImportError):
        spandrel._import_alone("outer_package.absent.net")


@pytest.mark.slow
@pytest.mark.parametrize("family", spandrel.NETWORKS)
def test_networks_of_spandrel(family):
    if spandrel.missing(family):
        pytest.skip(spandrel.missing(family))
    problem = workload(f"{family}-16x1").problem(1)
    assert problem.target(problem.x).shape == problem.gt.shape
    scores = rivals.loop(problem)(), rivals.authors(problem)()
    assert max(runner.errors(*scores)) < 1e-4
    assert first_run(f"{family}-16x1", "loop", 1, 1).seconds > 0  # nothing else is imported
