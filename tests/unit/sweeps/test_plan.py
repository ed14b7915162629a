"""Plans: what they refuse before the first unit, and the forms that they take."""

import csv

import pytest
import torch
from cases.sweeps import add_photo

from faigfast.data import Degradation, write_image
from faigfast.sweeps.catalogue import Catalogue
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.plan import Plan
from faigfast.sweeps.plan_file import read_plan
from faigfast.sweeps.run import sweep
from faigfast.sweeps.units import Grid


def grid_of(plan, folder):
    return Grid(Plan.of(plan), Catalogue(folder), FileCache())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pears": 1},
            r"the plan holds 'pears' \(did you mean 'pairs'\?\); expected some of pairs",
        ),
        ({"pairs": {}}, "pairs of the plan are empty"),
        ({"images": []}, "images of the plan are empty"),
        ({"settings": []}, "settings of the plan are empty"),
        ({"settings": [{"stepps": 3}]}, r"a setting holds 'stepps' \(did you mean 'steps'\?\)"),
        ({"settings": [{"rule": "lef"}]}, "rule is 'lef'"),
        ({"settings": [{"method": "faigg"}]}, r"method is 'faigg' \(did you mean 'faig'\?\)"),
        (
            {"settings": [{"method": "magnitude", "steps": 3}]},
            "'magnitude', which looks at the weights alone, holds 'steps'; expected .* parameters",
        ),
        ({"settings": [{"method": "random", "seed": -1}]}, "seed is -1; expected an integer"),
        ({"settings": [{"steps": 2}, {"steps": 2}]}, "settings hold 'steps=2' twice"),
        ({"settings": [{"gpus": -1}]}, "gpus is -1; expected a number from 0 up"),
        ({"degradations": {"blurr": [1]}}, r"no step is called so \(did you mean 'blur'\?\)"),
        ({"degradations": {"blur": ["a"]}}, "expected a number, as blur=SIGMA"),
        ({"degradations": {"x": {"recipe": "blur=1", "levels": [1]}}}, r"expected \{\} in its"),
        ({"degradations": {"x": {"recipes": "blur=1"}}}, r"holds 'recipes' \(did you mean"),
        ({"degradations": ["blur=1", "blur=1"]}, "degradations hold 'blur=1' twice"),
        ({"degradations": {"x": lambda gt, generator: gt}}, "no later run could recognise"),
        ({"shard": 0}, "shard is 0; expected an integer from 1 up"),
        ({"seed": -1}, "seed is -1; expected an integer from 0 up"),
        ({"alpha": "keep"}, "alpha is 'keep'"),
    ],
)
def test_wrong_plans_are_refused(plan, change, message):
    with pytest.raises(ValueError, match=message):
        Plan.of({**plan, **change})


def test_missing_parts_and_wrong_kinds():
    with pytest.raises(ValueError, match="the plan has no images; expected pairs and images"):
        Plan.of({"pairs": {"a": ["x", "y"]}})
    with pytest.raises(TypeError, match="plan is a int; expected a Plan, a mapping or a YAML file"):
        Plan.of(3)


def test_levels_of_all_forms():
    given = {
        "noise": [0.05, 0.1],
        "jpeg": 40,
        "motion": ["7:45"],
        "phone": "blur=1+jpeg=40",
        "mixed": {"recipe": "blur={}+noise=0.1", "levels": [1, 2.5]},
        "clean": None,
        "own": Degradation(blur=1.0),
    }
    levels = Plan({"p": ["a", "b"]}, "x", given, scale=2).levels
    assert [(level.name, level.degradation.text) for level in levels] == [
        ("noise=0.05", "noise=0.05"),
        ("noise=0.1", "noise=0.1"),
        ("jpeg=40", "jpeg=40"),
        ("motion=7:45", "motion=7:45"),
        ("phone", "blur=1+jpeg=40"),
        ("mixed=1", "blur=1+noise=0.1"),
        ("mixed=2.5", "blur=2.5+noise=0.1"),
        ("clean", "clean"),
        ("own", "blur=1"),
    ]
    named = Plan({"p": ["a", "b"]}, "x", ["blur=2", "night=gray-noise=0.1"]).levels
    assert [level.name for level in named] == ["blur=2", "night"]


def test_yaml_gives_what_a_mapping_gives(plan, tmp_path):
    pytest.importorskip("jsonargparse")
    yaml = pytest.importorskip("yaml")
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan))
    assert Plan.of(file) == Plan.of(plan) == Plan.of(str(file))
    file.write_text("pears: {}\n")
    with pytest.raises(ValueError, match=r"holds 'pears' \(did you mean 'pairs'\?\); expected"):
        read_plan(file)
    for text in ("pairs: [", "- a\n", "", "\0"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"plan .*plan.yaml: .*expected YAML"):
            read_plan(file)
    with pytest.raises(FileNotFoundError, match="there is no plan"):
        read_plan(tmp_path / "absent.yaml")


def test_a_pair_that_differs_is_refused_before_the_first_unit(
    plan, checkpoints, tmp_path, computed
):
    plan["pairs"]["odd"] = [str(checkpoints / "a.pth"), str(checkpoints / "other.pth")]
    with pytest.raises(ValueError, match=r"pair 'odd': .*\[4, 3, 3, 3\].*\[5, 3, 3, 3\]"):
        sweep(plan, tmp_path / "out", workers=0)
    assert computed == [] and not (tmp_path / "out").exists()


def test_a_missing_checkpoint_and_copies_of_a_pair(plan, checkpoints, tmp_path):
    twice = {**plan, "pairs": {"one": plan["pairs"]["tiny"], "two": plan["pairs"]["tiny"]}}
    with pytest.raises(ValueError, match="2 pairs are given and only 'two' differ in content"):
        grid_of(twice, tmp_path)
    plan["pairs"]["tiny"][1] = str(checkpoints / "absent.pth")
    with pytest.raises(FileNotFoundError, match=r"pair 'tiny': .*absent.pth"):
        grid_of(plan, tmp_path)


def paired(folder, scale):
    gt = torch.rand(3, 12, 12)
    write_image(folder / "gt" / "a.png", gt)
    write_image(folder / "lq" / "a.png", gt[:, ::scale, ::scale])
    return {"gt": str(folder / "gt"), "lq": {"soft": str(folder / "lq")}}


def test_folders_of_degraded_images(plan, tmp_path):
    plan |= {"images": [plan["images"], paired(tmp_path, 2)], "degradations": ["blur=1"]}
    grid = grid_of(plan, tmp_path)
    names = [grid.degradations[unit.degradation].name for unit in grid.units()]
    assert names.count("soft") == 1 and names.count("blur=1") == len(grid.shards) == 4
    assert len(grid) == len(names) == 5
    result = sweep(plan, tmp_path / "out", workers=0)
    assert [unit.names for unit in result.scores(None, "soft")] == [("a",)]
    contrast = result.contrast("soft", "blur=1")  # over the one image that has both
    difference = next(result.scores(None, "soft")).scores[0].double()
    for unit in result.scores(None, "blur=1"):
        if "a" in unit.names:
            difference = difference - unit.scores[unit.names.index("a")].double()
    torch.testing.assert_close(contrast, difference)


def test_images_of_no_common_scale_are_refused(plan, tmp_path):
    plan |= {"images": paired(tmp_path, 3), "degradations": {}}
    with pytest.raises(ValueError, match=r"'a' is 4×4 as 'soft' and 12×12 as .*a ratio of 2"):
        grid_of(plan, tmp_path)


def test_nothing_to_degrade_with(plan, tmp_path):
    with pytest.raises(ValueError, match="degradations of the plan are empty and no degraded"):
        grid_of({**plan, "degradations": {}}, tmp_path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_manifests(plan, photos, tmp_path, kind):
    rows = [{"file": f"photos/p{n}.png", "camera": "x"} for n in (3, 1)]
    file = tmp_path / f"list.{kind}"
    if kind == "csv":
        with open(file, "w", newline="") as opened:
            writer = csv.DictWriter(opened, ["file", "camera"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(rows), file)
    grid = grid_of({**plan, "images": str(file)}, tmp_path)
    assert [image.name for image in grid.listed.images] == ["photos/p3", "photos/p1"]


def test_a_manifest_with_degraded_images(plan, tmp_path):
    paired(tmp_path, 2)
    (tmp_path / "list.csv").write_text("gt,lq,lq soft\ngt/a.png,lq/a.png,lq/a.png\n")
    grid = grid_of({**plan, "images": str(tmp_path / "list.csv"), "degradations": {}}, tmp_path)
    assert [level.name for level in grid.degradations.values()] == ["lq", "soft"]
    (tmp_path / "list.csv").write_text("path\ngt/a.png\n")
    with pytest.raises(ValueError, match="has the columns path; expected 'file'"):
        grid_of({**plan, "images": str(tmp_path / "list.csv")}, tmp_path)


def test_urls_where_fsspec_is_installed(plan, photos, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in photos.iterdir():
        memory.pipe(f"/photos/{path.name}", path.read_bytes())
    remote = sweep({**plan, "images": "memory://photos"}, tmp_path / "remote", workers=0)
    local = sweep(plan, tmp_path / "local", workers=0)
    assert remote.status.done == 9
    assert torch.equal(remote.mean(None, "noise=0.1"), local.mean(None, "noise=0.1"))
    with pytest.raises(FileNotFoundError):
        grid_of({**plan, "images": "memory://nothing"}, tmp_path)


def test_copies_and_crops_are_noted_and_small_images_refused(plan, photos, tmp_path):
    (photos / "z.png").write_bytes((photos / "p0.png").read_bytes())
    write_image(photos / "odd.png", torch.rand(3, 13, 12))
    write_image(photos / "thin.png", torch.rand(3, 1, 12))
    grid = grid_of(plan, tmp_path)
    assert grid.listed.refused.keys() == {"thin"}
    assert "1×12; expected at least 2 pixels" in grid.listed.refused["thin"]
    assert "copies of others count once: z" in grid.listed.notes[0]
    assert (
        "that do not divide by 2 are cropped at the bottom and right: odd" in grid.listed.notes[1]
    )


def test_files_are_read_once_until_they_change(plan, photos, tmp_path, monkeypatch):
    from faigfast.sweeps import image_list

    read = []
    original = image_list.image_size
    monkeypatch.setattr(
        image_list, "image_size", lambda path, **k: read.append(path.stem) or original(path, **k)
    )
    cache = FileCache(tmp_path)
    Grid(Plan.of(plan), Catalogue(tmp_path), cache)
    cache.save()
    assert len(read) == 5
    add_photo(photos, 7)
    (photos / "p7.png").rename(photos / "p1.png")
    read.clear()
    Grid(Plan.of(plan), Catalogue(tmp_path), FileCache(tmp_path))
    assert read == ["p1"]
