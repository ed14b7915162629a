"""Bits of an AVIF file's numbers, from its header: Pillow decodes all of them to 8 bits."""

from collections.abc import Iterator

HEADER = 2**16  # bytes in which the properties of the images lie
PATH = (b"meta", b"iprp", b"ipco", b"av1C")  # boxes within boxes, to the decoder's configuration
FULL = {b"meta": 4}  # bytes of version and flags before the content
PROFILES = (b"avif", b"avis", b"mif1", b"msf1")


def avif_bits(content: bytes) -> int | None:
    """Give the largest number of bits, 8, 10 or 12, of the images in an AVIF file.

    Parameters
    ----------
    content : bytes
        The file, or its first `HEADER` bytes.

    Returns
    -------
    int or None
        None if it is no AVIF file, or its header says nothing.

    Notes
    -----
    Source: ISO/IEC 14496-12, boxes; AV1 Codec ISO Media File Format Binding, section 2.3.3.
    """
    if content[4:8] != b"ftyp" or content[8:12] not in PROFILES:
        return None
    depths = [
        (12 if content[start + 2] & 0x20 else 10) if content[start + 2] & 0x40 else 8
        for start, end in _inner(content, 0, len(content), PATH)
        if end - start > 2
    ]
    return max(depths, default=None)


def _inner(
    content: bytes, start: int, end: int, path: tuple[bytes, ...]
) -> Iterator[tuple[int, int]]:
    """Yield the contents of all boxes at a path."""
    while start + 8 <= end:
        size, kind = (
            int.from_bytes(content[start : start + 4], "big"),
            content[start + 4 : start + 8],
        )
        head = 8
        if size == 1:  # 64 bits follow
            size, head = int.from_bytes(content[start + 8 : start + 16], "big"), 16
        last = min(end, start + size) if size else end
        if last < start + head:
            return
        if kind == path[0]:
            inside = start + head + FULL.get(kind, 0)
            if len(path) == 1:
                yield inside, last
            else:
                yield from _inner(content, inside, last, path[1:])
        start = last
