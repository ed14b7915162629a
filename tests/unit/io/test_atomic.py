import os
import stat

import pytest

from faigfast.io.atomic import atomic_write, write_json, write_text


def test_text_and_json_arrive_whole(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "γ\n")
    write_json(tmp_path / "a.json", {"b": [1]})
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "γ\n"
    assert (tmp_path / "a.json").read_text().split() == ["{", '"b":', "[", "1", "]", "}"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "file.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "file.txt").read_text() == "new"


def test_devices_folders_and_files_in_the_way_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "file" / "a.txt"):
        with pytest.raises(ValueError, match=f"{path} cannot be written"):
            write_text(path, "")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
