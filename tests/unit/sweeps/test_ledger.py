"""Ledger and catalogue: damage, torn writes, and a million records."""

import os

import numpy as np
import pytest

from faigfast.sweeps.catalogue import Catalogue
from faigfast.sweeps.ledger import DONE, MAGIC, NAME, RECORD, SPLIT, Ledger, newest, read_records
from faigfast.sweeps.units import Unit


def unit(n):
    return Unit(n.to_bytes(32, "big"), 0, 1, 2, n)


def filled(folder, count=5):
    ledger = Ledger(folder)
    for n in range(count):
        ledger.add(unit(n), DONE, 100 + n, bytes([n]) * 32)
    ledger.close()
    return folder / NAME


def test_records_come_back(tmp_path):
    filled(tmp_path)
    records = read_records(tmp_path)
    assert records["shard"].tolist() == [0, 1, 2, 3, 4] and records["size"][3] == 103
    assert records["sha256"][2].tobytes() == bytes([2]) * 32
    ledger = Ledger(tmp_path)
    assert ledger.is_done(unit(4)) and not ledger.is_done(unit(5)) and len(ledger) == 5


def test_no_records(tmp_path):
    assert len(newest(read_records(tmp_path))) == 0
    (tmp_path / NAME).touch()
    assert len(newest(read_records(tmp_path))) == len(Ledger(tmp_path)) == 0


def test_a_second_record_of_a_unit_is_left_out(tmp_path):
    file = filled(tmp_path)
    before = file.read_bytes()
    ledger = Ledger(tmp_path)
    ledger.add(unit(3), DONE, 7)
    ledger.close()
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", ["torn", "flipped", "zeros"])
def test_damaged_records_are_dropped(tmp_path, damage):
    file = filled(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "torn":
        del content[-20:]
    elif damage == "flipped":
        content[-10] ^= 4
    else:
        content[-96:] = bytes(96)
    file.write_bytes(content)
    assert len(read_records(tmp_path)) == 4
    ledger = Ledger(tmp_path)
    assert not ledger.is_done(unit(4)) and len(file.read_bytes()) == 4 * RECORD.itemsize
    ledger.add(unit(4), DONE, 104)
    assert len(read_records(tmp_path)) == 5
    ledger.close()


def test_the_last_record_counts_and_the_file_is_compacted(tmp_path):
    file = filled(tmp_path)
    file.write_bytes(file.read_bytes() * 2)
    assert len(newest(read_records(tmp_path))) == 5
    Ledger(tmp_path)
    assert len(file.read_bytes()) == 5 * RECORD.itemsize


def test_a_full_disk_leaves_whole_records(tmp_path, monkeypatch):
    file = filled(tmp_path)
    before = file.read_bytes()
    ledger = Ledger(tmp_path)
    original = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: original(handle, content[:10]))
    with pytest.raises(ValueError, match=r"finished.bin cannot be written: No space left"):
        ledger.add(unit(9), DONE, 1)
    assert file.read_bytes() == before and not ledger.is_done(unit(9))
    ledger.close()


def test_split_units_are_not_done(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(unit(1), SPLIT)
    ledger.close()
    again = Ledger(tmp_path)
    assert again.is_split(unit(1)) and not again.is_done(unit(1))


def test_many_records_are_read(tmp_path):
    count = 10**5
    records = np.zeros(count, RECORD)
    numbers = np.zeros((count, 4), "<u8")
    numbers[:, 0] = np.arange(count)
    records["id"] = numbers.view("V32")[:, 0]
    records["state"] = DONE
    words = records.view("<u4").reshape(count, -1)
    records["check"] = np.bitwise_xor.reduce(words, axis=1) ^ MAGIC
    records.tofile(tmp_path / NAME)
    assert len(newest(read_records(tmp_path))) == count


def test_half_a_line_of_the_catalogue_is_dropped(tmp_path):
    catalogue = Catalogue(tmp_path)
    assert catalogue.add("pair", "x", {"name": "one"}) == 0
    assert catalogue.add("pair", "y", {"name": "two"}) == 1
    catalogue.save()
    file = tmp_path / "catalogue.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    again = Catalogue(tmp_path)
    assert [entry["name"] for entry in again.entries("pair")] == ["one"]
    assert again.add("pair", "z", {"name": "three"}) == 1
    again.save()
    third = Catalogue(tmp_path)
    assert [entry["name"] for entry in third.entries("pair")] == ["one", "three"]
    assert third.add("pair", "x", {"name": "renamed"}) == 0
    third.save()
    assert Catalogue(tmp_path).entry("pair", 0) == {"name": "renamed"}


def test_shards_halve_down_to_single_images(tmp_path):
    catalogue = Catalogue(tmp_path)
    content = {"images": ["a", "b", "c"], "names": ["1", "2", "3"], "size": [4, 4], "lq": []}
    number = catalogue.add("shard", "x", content)
    halves = [half for _, half in catalogue.halves(number)]
    assert [half["images"] for half in halves] == [["a"], ["b", "c"]]
    assert halves[1]["names"] == ["2", "3"]
    single = catalogue.add("shard", "y", halves[0])
    assert catalogue.halves(single) == []
