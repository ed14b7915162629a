"""Finished parts on disk: read again, computed again where damaged, refused where foreign."""

import shutil

import pytest
import torch

from faigfast.io.parts import Parts, refuse_other_run
from faigfast.io.tensor_file import load_tensors, save_tensors

IDENTITY = {"network": "a", "sizes": (1, 2)}


def keep(parts, name, value):
    parts.save(name, {"x": torch.tensor([value])}, {"note": name})


def read(parts, name):
    return parts.load(name, lambda tensors, metadata: int(tensors["x"]))


def test_parts_of_the_same_run_are_read_again(tmp_path):
    parts = Parts(tmp_path / "parts", IDENTITY)
    assert not (tmp_path / "parts").exists()
    keep(parts, "one", 1)
    keep(parts, "two", 2)
    again = Parts(tmp_path / "parts", IDENTITY)
    assert [read(again, name) for name in ("one", "two", "three")] == [1, 2, None]
    again.clear()
    assert not (tmp_path / "parts").exists()


def test_parts_of_another_run_are_refused_or_removed_with_the_first_new_part(tmp_path):
    keep(Parts(tmp_path, IDENTITY), "one", 1)
    other = {**IDENTITY, "network": "b"}
    with pytest.raises(ValueError, match="another run: network was 'a' and is 'b'"):
        Parts(tmp_path, other)
    parts = Parts(tmp_path, other, overwrite=True)
    assert read(parts, "one") is None and parts.path("one").exists()
    keep(parts, "two", 2)
    assert not parts.path("one").exists() and read(parts, "two") == 2


def test_discarded_parts_are_those_of_the_same_run_too(tmp_path):
    keep(Parts(tmp_path, IDENTITY), "one", 1)
    parts = Parts(tmp_path, IDENTITY)
    parts.discard()
    assert read(parts, "one") is None
    keep(parts, "two", 2)
    assert not parts.path("one").exists()


@pytest.mark.parametrize("damage", ["empty", "half", "zeroed"])
def test_a_damaged_part_is_missing(tmp_path, damage):
    keep(Parts(tmp_path, IDENTITY), "one", 1)
    path = tmp_path / "one.part"
    size = path.stat().st_size
    content = {"empty": b"", "half": path.read_bytes()[: size // 2], "zeroed": bytes(size)}
    path.write_bytes(content[damage])
    assert read(Parts(tmp_path, IDENTITY), "one") is None


def test_a_part_that_was_renamed_or_is_of_another_run_is_missing(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    keep(Parts(here, IDENTITY), "one", 1)
    keep(Parts(there, {**IDENTITY, "network": "b"}), "one", 2)
    shutil.copy(here / "one.part", here / "two.part")
    assert read(Parts(here, IDENTITY), "two") is None
    shutil.copy(there / "one.part", here / "one.part")
    assert read(Parts(here, IDENTITY), "one") is None


def test_every_flipped_bit_of_a_file_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"x": torch.tensor([1.5, -0.0]), "y": torch.tensor([True])}
    save_tensors(path, tensors, {"names": ["a", "b"]})
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                read_back, metadata = load_tensors(path)
            except ValueError:
                continue
            # Harmless: a digest under another name, or white space in the header.
            assert metadata["names"] == ["a", "b"]
            assert all(torch.equal(read_back[key], tensors[key]) for key in tensors)


def test_a_link_is_no_folder_of_parts(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link"):
        Parts(tmp_path / "link", IDENTITY)


def test_parts_without_their_identity_are_refused(tmp_path):
    (tmp_path / "one.part").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"without their run\.json"):
        Parts(tmp_path, IDENTITY)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        Parts(tmp_path, IDENTITY)


def test_a_folder_that_vanishes_stops_the_run_at_the_next_part(tmp_path):
    parts = Parts(tmp_path / "parts", IDENTITY)
    keep(parts, "one", 1)
    parts.clear()
    parts._begun = True
    with pytest.raises(ValueError, match="was removed or emptied"):
        keep(parts, "two", 2)


def test_a_part_of_an_identity_can_be_compared_early(tmp_path):
    refuse_other_run(tmp_path, {"network": "b"}, partly=True)
    keep(Parts(tmp_path, IDENTITY), "one", 1)
    refuse_other_run(tmp_path, {"network": "a"}, partly=True)
    with pytest.raises(ValueError, match="network was 'a' and is 'b'"):
        refuse_other_run(tmp_path, {"network": "b"}, partly=True)
