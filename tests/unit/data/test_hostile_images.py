"""Images made to hang, to fill the memory or to be skipped."""

import os
import struct
import zlib

import pytest
import torch
from PIL import Image, features

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


@pytest.mark.parametrize("suffix", ["tif", "ppm", "avif"])
@pytest.mark.parametrize("share", [0, 0.05, 0.6])
def test_truncated_files_of_other_formats_are_named(tmp_path, suffix, share):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    path = tmp_path / f"a.{suffix}"
    options = {"compression": "tiff_lzw"} if suffix == "tif" else {}
    rows = torch.arange(64 * 64 * 3).remainder(251).to(torch.uint8).view(64, 64, 3)
    Image.fromarray(rows.numpy()).save(path, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("kind", [b"P6", b"P5", b"P3"])
@pytest.mark.parametrize("most", [255, 65535])
def test_ppm_claims_of_too_many_pixels(tmp_path, read, kind, most):
    (tmp_path / "a.ppm").write_bytes(kind + b" 60000 60000 %d\n" % most)
    with pytest.raises(ValueError, match=r"a\.ppm .*3600000000 pixels.* is above"):
        read(tmp_path / "a.ppm")


def test_a_tiff_whose_pages_lead_in_a_circle(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * entries, start)  # the next page is this one
    path.write_bytes(content)
    for read in (read_image, image_size):
        try:
            read(path)
        except ValueError as error:
            assert "a.tif cannot be read" in str(error)


@pytest.mark.parametrize("count", [0, 1, 2**31])
def test_a_tiff_without_layout(tmp_path, count):
    entries = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, count, 8), (262, 3, 1, 2)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    (tmp_path / "a.tif").write_bytes(head + body + bytes(4))
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"a\.tif cannot be read"):
            read(tmp_path / "a.tif")
