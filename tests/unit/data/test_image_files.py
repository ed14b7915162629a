"""Names of images: patterns of degraded images, Unicode forms, hidden files, links, subfolders."""

import unicodedata

import pytest
import torch

from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.data.image_files import checked_pattern, image_files, match_names
from faigfast.data.images import write_image


def save(path, side=8):
    write_image(path, torch.full((3, side, side), 0.5))


@pytest.fixture
def named(tmp_path):
    """Make ground truths 0001 and 0002, and degraded images of any names."""

    def make(*names, gt=("0001", "0002")):
        for name in gt:
            save(tmp_path / "gt" / f"{name}.png")
        for name in names:
            save(tmp_path / "lq" / f"{name}.png", 4)
        return tmp_path / "gt", tmp_path / "lq"

    return make


@pytest.mark.parametrize(
    "pattern", ["{}x2", "{}_x2", "{}_LR", "{}X4", "{}_lq", "{}_LRBI_x2", "{}x2_LR"]
)
def test_patterns_of_published_sets_are_tried(named, pattern):
    gt, lq = named(*(pattern.replace("{}", name) for name in ("0001", "0002")))
    data = PairedFolders(gt, lq)
    assert data.files("0002")["lq lq"].stem == pattern.replace("{}", "0002")
    assert data.notes == [f"lq folder 'lq': images are matched by names such as {pattern!r}"]
    assert data[1]["lq"]["lq"].shape == (3, 4, 4) and data[1]["name"] == "0002"


def test_equal_names_come_first(named):
    gt, lq = named("a", "ax2", gt=("a", "ax2"))
    assert PairedFolders(gt, lq).files("a")["lq lq"].stem == "a"


@pytest.mark.parametrize("pattern", ["small-{}-v1", "small-{}-v1.png", "small-{}-v{scale}"])
def test_a_given_pattern_leaves_other_images_out(named, pattern):
    others = ("0001x3", "0001", "small--v1", "readme")
    gt, lq = named("small-0001-v1", "small-0002-v1", *others)
    data = PairedFolders(gt, lq, lq_name=pattern)
    assert data.files("0001")["lq lq"].name == "small-0001-v1.png" and not data.notes


def test_a_known_scale_chooses_among_patterns(named):
    files = {name: name for name in ("ax2", "ax4", "bx2", "bx4")}
    assert match_names("ab", files, "lq", "{}x{scale}", 4) == ({"a": "ax4", "b": "bx4"}, "{}x4")


def test_the_closest_file_is_named(named):
    gt, lq = named("0001_bicubic", "0002_bicubic")
    message = r"lacks 0001, 0002; the closest to 0001 is 0001_bicubic\.png; .*'{}_bicubic'"
    with pytest.raises(ValueError, match=message):
        PairedFolders(gt, lq)
    with pytest.raises(ValueError, match=r"lacks 0001x2, 0002x2; .* of the gt folder as '{}x2'"):
        PairedFolders(gt, lq, lq_name="{}x2")
    assert len(PairedFolders(gt, lq, lq_name="{}_bicubic")) == 2


def test_partners_without_a_ground_truth_are_refused(named):
    gt, lq = named("0001x2", "0002x2", "0003x2")
    with pytest.raises(ValueError, match=r"adds 0003x2; .* as '{}x2'"):
        PairedFolders(gt, lq, lq_name="{}x2")
    with pytest.raises(ValueError, match=r"lacks 0001, 0002; the closest"):
        PairedFolders(gt, lq)


@pytest.mark.parametrize("pattern", ["x2", "{}{}", "a/{}", ""])
def test_patterns_that_are_none(pattern):
    with pytest.raises(ValueError, match=r"lq_name is .*; expected {} once"):
        checked_pattern(pattern)
    with pytest.raises(TypeError, match="lq_name is 2"):
        checked_pattern(2)


def test_unicode_forms_of_a_name_are_equal(tmp_path):
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    save(tmp_path / "gt" / f"{other}.png")
    save(tmp_path / "lq" / f"{one}x2.png", 4)
    assert PairedFolders(tmp_path / "gt", tmp_path / "lq").names == [one]
    save(tmp_path / "gt" / f"{one}.png")
    if len(list((tmp_path / "gt").iterdir())) == 2:  # the file system tells them apart
        with pytest.raises(ValueError, match="has both"):
            image_files(tmp_path / "gt")


def test_names_that_begin_with_a_dot_are_skipped(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_text("metadata of a file system")
    save(tmp_path / ".thumbnails" / "a.png")
    assert list(image_files(tmp_path, recursive=True)) == ["a"]


def test_dangling_folders_are_refused_by_name(tmp_path):
    (tmp_path / "gt").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"gt folder .*gt is a link to .*gone, where"):
        image_files(tmp_path / "gt", "gt folder")


def test_subfolders(tmp_path):
    for folder, side in (("gt", 8), ("lq", 4)):
        for name in ("a", "one/a", "one/two/b"):
            ending = "x2" if folder == "lq" else ""
            save(tmp_path / folder / f"{name}{ending}.png", side)
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    assert PairedFolders(gt, lq).names == ["a"]
    data = PairedFolders(gt, lq, recursive=True)
    assert data.names == ["a", "one/a", "one/two/b"]
    assert data.files("one/a")["lq lq"] == lq / "one" / "ax2.png"
    assert len(DegradedFolder(gt, {"clean": Degradation()}, recursive=True)) == 3
    with pytest.raises(ValueError, match=r"has no image; .* \(subfolders are read with recursive"):
        image_files(_only_subfolder(tmp_path))


def _only_subfolder(folder):
    save(folder / "outer" / "inner" / "a.png")
    return folder / "outer"


def test_links_to_folders(tmp_path):
    save(tmp_path / "elsewhere" / "b.png")
    save(tmp_path / "gt" / "a.png")
    (tmp_path / "gt" / "more").symlink_to(tmp_path / "elsewhere")
    assert list(image_files(tmp_path / "gt", recursive=True)) == ["a", "more/b"]
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "gt")
    with pytest.raises(ValueError, match=r"more/up is a link to a folder above it"):
        image_files(tmp_path / "gt", recursive=True)
