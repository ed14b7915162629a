"""Hostile images and folders of images: for `read_image`, `PairedFolders`, `DegradedFolder`."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from hostile_file import FILE, Hostile, damaged, listening, misplaced, sparse
from readers import picture, write_folders, write_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *chunks: bytes, bits: int = 1, color: int = 0) -> bytes:
    """Give a PNG of zeros that claims a size, with its rows compressed in little memory."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return SIGNATURE + header + b"".join(chunks) + _chunk(b"IEND")


def zeros(count: int, level: int = 9) -> bytes:
    """Compress zeros chunk by chunk."""
    stream, part = zlib.compressobj(level), bytes(2**20)
    compressed = [stream.compress(part[: count - done]) for done in range(0, count, len(part))]
    return b"".join(compressed) + stream.flush()


def _bomb(side: int) -> bytes:
    return png(side, side, _chunk(b"IDAT", zeros(side * (side // 8 + 1))))


def _jpeg(folder: Path) -> Path:
    from PIL import Image

    pixels = (picture() * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "good.jpg", quality=95)
    return folder / "good.jpg"


def _jpeg_of(width: int, height: int) -> Callable[[Path], object]:
    """Write a JPEG whose frame claims a size."""

    def write(folder: Path) -> None:
        content = bytearray(_jpeg(folder).read_bytes())
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
        (folder / f"{FILE}.jpg").write_bytes(content)

    return write


def _bmp(width: int, height: int, offset: int = 54) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, offset) + info


IMAGES: dict[str, Callable[[], bytes]] = {
    "bomb of 50,000²": lambda: _bomb(50_000),
    "claim of 2³¹ - 1": lambda: png(2**31 - 1, 2**31 - 1, _chunk(b"IDAT", zeros(100))),
    "claim of 20,000² without rows": lambda: png(20_000, 20_000),
    "claim of 13,000² without rows": lambda: png(13_000, 13_000),
    "claim of 13,000² with one row": lambda: png(13_000, 13_000, _chunk(b"IDAT", zeros(1626))),
    "width of 0": lambda: png(0, 5, _chunk(b"IDAT", zeros(9))),
    "text that is a bomb": lambda: png(
        1, 1, _chunk(b"zTXt", b"a\0\0" + zeros(2**28)), _chunk(b"IDAT", zeros(2))),
    "profile that is a bomb": lambda: png(
        1, 1, _chunk(b"iCCP", b"a\0\0" + zeros(2**29)), _chunk(b"IDAT", zeros(2))),
    "unknown bit depth": lambda: png(4, 4, _chunk(b"IDAT", zeros(8)), bits=7),
    "chunk of 2³¹ bytes": lambda: SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IHDR",
    "no header": lambda: SIGNATURE + _chunk(b"IDAT", zeros(8)) + _chunk(b"IEND"),
    "BMP of a negative width": lambda: _bmp(-5, 5),
    "BMP of 30,000²": lambda: _bmp(30_000, 30_000),
    "BMP of pixels far away": lambda: _bmp(4, 4, 2**31),
    "GIF": lambda: b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "TIFF": lambda: b"II*\0" + b"\xff" * 100,
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n",
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>",
    "WebP of no content": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
}  # fmt: skip


def _one_pixel(part: Path) -> None:
    (part / "a.png").write_bytes(png(1, 1, _chunk(b"IDAT", zeros(2))))


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(part: Path) -> None:
        (part / "a.png").unlink()
        make(part / "a.png")

    return change


# Changes of one folder in a good pair of folders, and whether it may be read as before.
FOLDERS: dict[str, tuple[Callable[[Path], object], bool]] = {
    "an image of one pixel": (_one_pixel, False),
    "a bomb": (lambda part: (part / "a.png").write_bytes(_bomb(50_000)), False),
    "half an image": (_replaced(lambda p: p.write_bytes((p.parent / "b.png").read_bytes()[:150])),
                      False),
    "text as image": (_replaced(lambda path: path.write_text("no image")), False),
    "an empty image": (_replaced(Path.touch), False),
    "a folder as image": (_replaced(Path.mkdir), False),
    "a FIFO as image": (_replaced(os.mkfifo), False),
    "a socket as image": (_replaced(listening), False),
    "a link to itself": (_replaced(lambda path: path.symlink_to(path)), False),
    "a link to zeros": (_replaced(lambda path: path.symlink_to("/dev/zero")), False),
    "an image of 50 GB": (_replaced(sparse), False),
    "a FIFO beside": (lambda part: os.mkfifo(part / "c.png"), True),
    "a broken link beside": (lambda part: (part / "c.png").symlink_to("nothing"), True),
    "a name twice": (lambda part: (part / "a.jpg").touch(), False),
    "an image more": (lambda part: (part / "c.png").write_bytes((part / "a.png").read_bytes()),
                      False),
    "an image less": (lambda part: (part / "a.png").unlink(), False),
    "a name of invalid UTF-8": (lambda part: (part / "\udcff.png").touch(), False),
    "a name with a line break": (lambda part: (part / "a\nb.png").touch(), False),
    "20,000 other files": (
        lambda part: [os.mknod(part / f"{n}.txt") for n in range(20_000)], True),
}  # fmt: skip


# Without a partner, these are another image, or no image and skipped as the documents say.
ONLY_PAIRED = (
    "an image of one pixel", "a folder as image", "a FIFO as image", "a socket as image",
    "a link to itself", "a link to zeros", "an image more", "an image less",
)  # fmt: skip


def _changed(part: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        write_folders(folder, FILE)
        change(folder / FILE / part)

    return write


def _whole(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(folder / FILE)


WHOLE: dict[str, Callable[[Path], object]] = {
    "link to itself": lambda path: path.symlink_to(path),
    "file": lambda path: path.touch(),
    "missing": lambda path: None,
    "empty folder": lambda path: path.mkdir(),
}


def _endless_exif(folder: Path) -> None:
    content, start = write_picture(folder).read_bytes(), len(SIGNATURE) + 25
    exif = _chunk(b"eXIf", b"MM\0*" + b"\xff" * 50)
    (folder / FILE).write_bytes(content[:start] + exif + content[start:])


def hostile_files(random: Random) -> list[Hostile]:
    """Give all hostile images and folders."""
    files = [Hostile("picture: EXIF without end", "picture", _endless_exif, readable=True)]
    files += damaged("picture", write_picture, random, 8, 16, 4) + misplaced("picture")
    for name, make in IMAGES.items():
        write = _bytes(make)
        files.append(Hostile(f"picture: {name}", "picture", write))
    for width, height in ((65_500, 65_500), (13_000, 13_000), (0, 5)):
        name = f"picture: JPEG that claims {width}×{height}"
        files.append(Hostile(name, "picture", _jpeg_of(width, height), file=f"{FILE}.jpg"))
    for name, (change, readable) in FOLDERS.items():
        for reader, part in (("paired folders", "lq"), ("degraded folder", "gt")):
            if reader == "paired folders" or name not in ONLY_PAIRED:
                title, write = f"{reader}: {name}", _changed(part, change)
                files.append(Hostile(title, reader, write, readable, words=f"{FILE}|'a'"))
    for name, change in WHOLE.items():
        files.append(Hostile(f"paired folders: {name}", "paired folders", _whole(change)))
    return files


def _bytes(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / FILE).write_bytes(make())
