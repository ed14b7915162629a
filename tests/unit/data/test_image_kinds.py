"""Kinds of images: gray and colour networks, alpha channels, 16 bits, TIFF, PPM and AVIF."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from faigfast.data.avif_depth import avif_bits
from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.data.images import image_size, read_image

tifffile = pytest.importorskip("tifffile")
BYTES = np.random.default_rng(0).integers(0, 256, (6, 4, 4)).astype(np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (6, 4, 4)).astype(np.uint16)


def tensor(array, top):
    return torch.from_numpy(array.astype(np.float64) / top).permute(2, 0, 1).float()


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "ppm", "avif", "webp", "bmp"])
def test_formats_in_colour(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    path = tmp_path / f"a.{suffix}"
    options = {"avif": {"quality": 100, "subsampling": "4:4:4"}, "webp": {"lossless": True}}
    Image.fromarray(BYTES[..., :3]).save(path, **options.get(suffix, {}))
    assert image_size(path) == (6, 4)
    near = 4 if suffix == "avif" else 0  # lossy
    difference = read_image(path) - tensor(BYTES[..., :3], 255)
    assert float(difference.abs().max()) * 255 <= near + 1e-3
    assert DegradedFolder(tmp_path, {"clean": Degradation()}).names == ["a"]


def deep_avif(bits):
    """An AVIF file of 8 bits whose header says more: Pillow writes no others."""
    encoded = io.BytesIO()
    Image.fromarray(BYTES[..., :3]).save(encoded, "AVIF")
    content = bytearray(encoded.getvalue())
    flags = content.index(b"av1C") + 6
    content[flags] |= {8: 0x00, 10: 0x40, 12: 0x60}[bits]
    return bytes(content)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_of_more_than_8_bits_is_refused(tmp_path, bits):
    path = tmp_path / "deep.avif"
    path.write_bytes(deep_avif(bits))
    assert avif_bits(path.read_bytes()) == bits
    if bits == 8:
        assert image_size(path) == (6, 4) and read_image(path).shape == (3, 6, 4)
        return
    message = rf"deep\.avif.*AVIF of {bits} bits, of which Pillow keeps 8; expected 8 bits"
    for read in (image_size, read_image, lambda p: DegradedFolder(tmp_path, {"a": Degradation()})):
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" * 9,
        b"\0\0\0\x1cftypavif" + b"\0\0\0\x01meta" * 9,
        b"\0\0\0\x08ftypavif" + b"\0" * 99,
    ],
)
def test_headers_that_say_nothing_of_bits(content):
    assert avif_bits(content) is None


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "CMYK"])
def test_gray_networks_read_gray(tmp_path, mode):
    image = Image.fromarray(BYTES[..., :3]).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    gray = read_image(path, channels=1)
    assert gray.shape == (1, 6, 4)
    assert torch.equal(gray, tensor(np.asarray(image.convert("L"))[..., None], 255))
    data = DegradedFolder(tmp_path, {"clean": Degradation()}, channels=1)
    item = data[0]
    assert item["gt"].shape == (1, 6, 4) and item["lq"]["clean"].shape == (1, 3, 2)


@pytest.mark.parametrize("alpha", [0, 254, 255])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette"])
def test_alpha_is_refused_unless_opaque(tmp_path, kind, alpha):
    image = Image.fromarray(BYTES[..., :3])
    for name, size in (("gt", (8, 8)), ("lq", (4, 4))):
        (tmp_path / name).mkdir()
        small = image.resize(size)
        if kind == "palette":
            small = small.convert("P")
            options = {"transparency": bytes([alpha] * 256)}
        else:
            small = small.convert(kind)
            small.putalpha(alpha)
            options = {}
        small.save(tmp_path / name / "a.png", **options)
    folders = tmp_path / "gt", tmp_path / "lq"
    data = PairedFolders(*folders, alpha="drop")
    assert data[0]["gt"].shape == (3, 8, 8)
    if alpha == 255:
        opaque = PairedFolders(*folders)[0]
        assert torch.equal(opaque["gt"], data[0]["gt"])
        return
    message = r"image .*a\.png has transparent pixels; .*alpha='drop' \(--alpha drop\)"
    for call in (
        lambda: read_image(tmp_path / "gt" / "a.png"),
        lambda: PairedFolders(*folders),  # before any image is used
        lambda: DegradedFolder(folders[0], {"clean": Degradation()}),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "byteorder": ">"},
        {"rowsperstrip": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_keeps_every_bit(tmp_path, channels, options):
    path = tmp_path / "a.tif"
    array = WIDE[..., :channels].copy()
    if channels == 4:
        array[..., 3] = 65535
        options = {**options, "extrasamples": ["unassalpha"]}
    photometric = "minisblack" if channels == 1 else "rgb"
    stored = array[..., 0] if channels == 1 else array
    tifffile.imwrite(path, stored, photometric=photometric, **options)
    colour = np.repeat(array, 3, 2) if channels == 1 else array[..., :3]
    torch.testing.assert_close(read_image(path), tensor(colour, 65535), rtol=0, atol=1e-7)


def test_16_bit_ppm_and_pgm(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 # 16 bits\n4 6\n65535\n" + _big(WIDE[..., :3]))
    torch.testing.assert_close(
        read_image(tmp_path / "a.ppm"), tensor(WIDE[..., :3], 65535), rtol=0, atol=1e-7
    )
    gray = read_image(tmp_path / "a.ppm", channels=1)
    luma = (WIDE[..., :3] * [0.299, 0.587, 0.114]).sum(2, keepdims=True)
    torch.testing.assert_close(gray, tensor(luma, 65535), rtol=0, atol=1e-6)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 6 65535\n" + _big(WIDE[..., :1]))
    gray = read_image(tmp_path / "a.pgm", channels=1)
    torch.testing.assert_close(gray, tensor(WIDE[..., :1], 65535), rtol=0, atol=1e-7)
    (tmp_path / "b.ppm").write_bytes(b"P6 4 6 1023\n" + _big(WIDE[..., :3] % 1024))
    torch.testing.assert_close(
        read_image(tmp_path / "b.ppm"), tensor(WIDE[..., :3] % 1024, 1023), rtol=0, atol=1e-6
    )
    (tmp_path / "b.ppm").write_bytes(b"P6 4 6 1023\n" + _big(WIDE[..., :3])[:-2])
    with pytest.raises(ValueError, match=r"b\.ppm cannot be read"):
        read_image(tmp_path / "b.ppm")


def _big(array):
    return array.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "array, options, message",
    [
        (WIDE[..., :3].transpose(2, 0, 1), {"planarconfig": "separate"}, "bits a pixel as R"),
        (WIDE[..., 0], {"photometric": "miniswhite"}, r"it holds \(16,\) bits a pixel"),
        (WIDE[..., 0].astype(np.uint32), {}, r"it holds \(32,\) bits a pixel"),
        (WIDE[..., 0].astype(np.float32), {}, "it holds floating-point numbers"),
        (np.stack([WIDE[..., 0]] * 2), {}, "it has several pages"),
        (BYTES[..., :3][None].repeat(2, 0), {"photometric": "rgb"}, "it has several pages"),
    ],
    ids=["planes", "white is 0", "32 bits", "floats", "pages", "pages in colour"],
)
def test_what_pillow_would_read_wrongly_is_refused(tmp_path, array, options, message):
    photometric = "rgb" if "planarconfig" in options else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, **{"photometric": photometric, **options})
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=rf"a\.tif cannot be read .*{message}"):
            read(tmp_path / "a.tif")


def test_text_of_more_than_8_bits_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_text("P3 1 1 1000\n1 2 3\n")
    with pytest.raises(ValueError, match="text of more than 8 bits"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("options", [{"channels": 2}, {"channels": True}, {"alpha": "blend"}])
def test_unknown_arguments(tmp_path, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        read_image(tmp_path / "a.png", **options)
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        PairedFolders(tmp_path, tmp_path, **options)


def test_errors_of_a_degradation_name_the_file(tmp_path):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "small.png")
    data = DegradedFolder(tmp_path, {"blur": Degradation(blur=2.0)})
    message = r"image .*small\.png, degradation 'blur': .* too small"
    with pytest.raises(ValueError, match=message):
        data[0]

    def wrong(gt, seed):
        return gt[..., 1:, :]

    wrong.scale = 1
    data = DegradedFolder(tmp_path, {"wrong": wrong})
    with pytest.raises(ValueError, match=r"small\.png, degradation 'wrong': it gives \[3, 5, 4\]"):
        data[0]


def test_sizes_are_cropped_to_a_multiple(tmp_path):
    for name, side in (("a", 40), ("b", 32)):
        Image.fromarray(np.zeros((side, side + 6, 3), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"cropped 2 of 2 images .* by the scale 2 times crop"):
        data = DegradedFolder(tmp_path, {"clean": Degradation()}, crop_to=8)
    assert data.low_sizes == {"a": (16, 16), "b": (16, 16)}
    item = data[0]
    assert item["gt"].shape == (3, 32, 32) and item["lq"]["clean"].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"b\.png is 32×38; .* 40, the scale 2 times crop_to=20"):
        DegradedFolder(tmp_path, {"clean": Degradation()}, crop_to=20)
    with pytest.raises(ValueError, match="crop_to is 0"):
        DegradedFolder(tmp_path, {"clean": Degradation()}, crop_to=0)
