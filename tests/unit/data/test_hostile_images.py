"""Images made to hang, to fill the memory or to be skipped."""

import os
import struct
import zlib

import pytest
import torch

from faigfast.data.folders import DegradedFolder, image_files
from faigfast.data.images import image_size, read_image, write_image


@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_is_no_regular_file(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is a named pipe; expected"):
        read(tmp_path / "a.png")
    for device in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(ValueError, match=f"{device} is a device; expected"):
            read(device)


@pytest.mark.parametrize("side", [13_000, 60_000])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_claims_of_too_many_pixels(tmp_path, read, side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
    path = tmp_path / "a.png"
    path.write_bytes(png + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT" + bytes(4))
    message = rf"a\.png .*{side**2} pixels.* is above PIL\.Image\.MAX_IMAGE_PIXELS.* you trust"
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_line_break_in_a_name_stays_off_the_message(tmp_path):
    path = tmp_path / "a\nb.png"
    with pytest.raises(FileNotFoundError, match=r"a\\nb\.png"):
        read_image(path)
    path.write_text("no image")
    for read in (read_image, image_size, lambda path: DegradedFolder(path.parent, {"a": scaled})):
        with pytest.raises(ValueError, match=r"a\\nb\.png' cannot be read") as error:
            read(path)
        assert "\n" not in str(error.value)


def scaled(gt, seed):
    return gt


scaled.scale = 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.symlink_to("gone"), r"a\.png is a link to gone, where no file is"),
        (lambda path: path.symlink_to("a.png"), r"a\.png is a link that leads to itself"),
        (os.mkfifo, r"a\.png is a named pipe"),
    ],
    ids=["broken link", "loop", "pipe"],
)
def test_images_that_cannot_be_read_are_not_skipped(tmp_path, make, message):
    write_image(tmp_path / "b.png", torch.zeros(3, 4, 4))
    (tmp_path / "folder.png").mkdir()  # folders are skipped
    assert list(image_files(tmp_path)) == ["b"]
    make(tmp_path / "a.png")
    for read in (image_files, lambda path: DegradedFolder(path, {"a": scaled})):
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
