import builtins
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.data.images import read_image, write_image


def pixels(height, width, channels=3, seed=0, top=256):
    array = np.random.default_rng(seed).integers(0, top, (height, width, channels))
    return array[..., 0] if channels == 1 else array


def save(path, height=8, width=10, seed=0, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels(height, width, seed=seed).astype(np.uint8)).save(path, **options)


def png16(path, array):
    """Write a 16-bit PNG by hand, because Pillow cannot write one in colour."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def to_tensor(array, top=255):
    return torch.from_numpy(np.asarray(array, np.float64)).permute(2, 0, 1) / top


# Images


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "gif-like"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    rgba = Image.fromarray(pixels(5, 7, 4).astype(np.uint8), "RGBA")
    image = rgba.convert("RGB").convert("P") if mode == "gif-like" else rgba
    image = rgba.convert("RGB").convert(mode) if mode in ("1", "L", "P") else image
    image = rgba.convert(mode) if mode in ("LA", "RGB") else image
    image.save(tmp_path / "a.png", **({"transparency": 3} if mode == "gif-like" else {}))
    loaded = read_image(tmp_path / "a.png", alpha="drop")
    assert loaded.dtype == torch.float32 and loaded.is_contiguous() and loaded.shape == (3, 5, 7)
    assert torch.equal(loaded, to_tensor(image.convert("RGB")).float())
    if mode == "RGBA":  # alpha is dropped, not blended
        assert torch.equal(loaded, to_tensor(np.asarray(rgba)[..., :3]).float())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_every_bit(tmp_path, channels):
    array = pixels(6, 5, channels, top=65536).reshape(6, 5, channels)
    array[0, 0], array[0, 1] = 65535, 1
    png16(tmp_path / "a.png", array)
    loaded = read_image(str(tmp_path / "a.png"), alpha="drop")
    colour = np.repeat(array, 3, 2) if channels == 1 else array[..., :3]
    torch.testing.assert_close(loaded.double() * 65535, to_tensor(colour, 1), rtol=0, atol=4e-3)
    assert loaded[0, 0, 0] == 1


def test_16_bit_gray_with_alpha_is_refused(tmp_path):
    png16(tmp_path / "a.png", pixels(6, 5, 2, top=65536))
    with pytest.raises(ValueError, match=r"a\.png.*gray with alpha at 16 bit"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_obeyed(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "gt" / f"a.{suffix}", 8, 12, exif=exif)
    save(tmp_path / "lq" / "a.png", 6, 4)
    upright = read_image(tmp_path / "gt" / f"a.{suffix}")
    assert upright.shape == (3, 12, 8)
    stored = to_tensor(Image.open(tmp_path / "gt" / f"a.{suffix}").convert("RGB")).float()
    assert torch.equal(upright, stored.rot90(-1, (1, 2)))
    assert PairedFolders(tmp_path / "gt", tmp_path / "lq")[0]["gt"].shape == (3, 12, 8)


def test_write_then_read(tmp_path):
    image = torch.rand(3, 5, 7, dtype=torch.float64) * 1.4 - 0.2
    write_image(tmp_path / "new" / "a.png", image)
    expected = (image.clamp(0, 1) * 255).round() / 255
    assert torch.equal(read_image(tmp_path / "new" / "a.png"), expected.float())
    write_image(tmp_path / "b.png", image[:1].half())
    assert Image.open(tmp_path / "b.png").mode == "L"


@pytest.mark.parametrize(
    "image, error, message",
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, r"image is torch\.uint8"),
        (np.zeros((3, 4, 4)), TypeError, "image is ndarray"),
        (torch.zeros(2, 4, 4), ValueError, r"shape \[2, 4, 4\]"),
        (torch.zeros(1, 3, 4, 4), ValueError, r"shape \[1, 3, 4, 4\]"),
        (torch.zeros(3, 0, 4), ValueError, r"shape \[3, 0, 4\]"),
        (torch.full((3, 4, 4), float("nan")), ValueError, "not finite"),
    ],
)
def test_write_refuses(tmp_path, image, error, message):
    with pytest.raises(error, match=message):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_write_refuses_places(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg ends in '\.jpg'; expected \.png"):
        write_image(tmp_path / "a.jpg", torch.zeros(3, 4, 4))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"file.*a path in a folder that can be written"):
        write_image(tmp_path / "file" / "a.png", torch.zeros(3, 4, 4))


@pytest.mark.parametrize("share", [0, 0.05, 0.6])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_truncated_images_are_named(tmp_path, suffix, share):
    path = tmp_path / f"broken.{suffix}"
    save(path, 64, 64)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"broken\.{suffix} cannot be read"):
        read_image(path)


def test_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.png", format="TIFF")
    for name in ("text.png", "float.png", "."):
        with pytest.raises(ValueError, match="cannot be read as one of PNG"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no image .*none\.png"):
        read_image(tmp_path / "none.png")


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    save(tmp_path / "gt" / "a.png")
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    for call in (
        lambda: read_image(tmp_path / "gt" / "a.png"),
        lambda: write_image(tmp_path / "b.png", torch.zeros(3, 4, 4)),
        lambda: PairedFolders(tmp_path / "gt", tmp_path / "gt"),
        lambda: DegradedFolder(tmp_path / "gt", {"blur": Degradation()}),
    ):
        with pytest.raises(ImportError, match=r"pip install 'faigfast\[data\]'"):
            call()


# Pairs


@pytest.fixture
def pairs(tmp_path):
    for seed, (name, height, width) in enumerate([("b", 8, 12), ("a", 6, 10), ("c", 20, 4)]):
        save(tmp_path / "gt" / f"{name}.png", height, width, seed)
        save(tmp_path / "blur" / f"{name}.PNG", height // 2, width // 2, seed + 10)
        save(tmp_path / "noise" / f"{name}.Jpeg", height // 2, width // 2, seed + 20, format="JPEG")
    (tmp_path / "gt" / "notes.txt").write_text("not an image")
    (tmp_path / "gt" / "d.png").mkdir()
    return tmp_path


def test_pairs_by_name(pairs):
    data = PairedFolders(pairs / "gt", {"blur": pairs / "blur", "noise": str(pairs / "noise")})
    assert (len(data), data.names, data.scale, data.notes) == (3, ["a", "b", "c"], 2, [])
    item = data[1]
    assert item["name"] == "b" and list(item["lq"]) == ["blur", "noise"]
    assert torch.equal(item["gt"], read_image(pairs / "gt" / "b.png"))
    assert torch.equal(item["lq"]["blur"], read_image(pairs / "blur" / "b.PNG"))
    assert torch.equal(item["lq"]["noise"], read_image(pairs / "noise" / "b.Jpeg"))
    assert [each["name"] for each in data] == data.names


def test_files_of_an_image(pairs):
    data = PairedFolders(pairs / "gt", {"blur": pairs / "blur", "noise": pairs / "noise"})
    assert data.files("b") == {
        "gt": pairs / "gt" / "b.png",
        "lq blur": pairs / "blur" / "b.PNG",
        "lq noise": pairs / "noise" / "b.Jpeg",
    }
    degraded = DegradedFolder(pairs / "gt", {"blur": Degradation()})
    assert degraded.files("a") == {"gt": pairs / "gt" / "a.png"}


def test_batches_fit_attribute(pairs):
    data = PairedFolders(pairs / "gt", pairs / "blur")
    batches = list(data.batches())
    assert [[*batch["gt"].shape] for batch in batches] == [
        [1, 3, 6, 10],
        [1, 3, 8, 12],
        [1, 3, 20, 4],
    ]
    for batch, item in zip(batches, data, strict=True):
        assert set(batch) == {"lq", "gt", "name"} and batch["name"] == [item["name"]]
        assert set(batch["lq"]) == {"lq"}
        assert torch.equal(batch["gt"][0], item["gt"])
        assert torch.equal(batch["lq"]["lq"][0], item["lq"]["lq"])


def test_a_data_loader_takes_it(pairs):
    loader = DataLoader(PairedFolders(pairs / "gt", pairs / "blur"), batch_size=1)
    assert [batch["name"] for batch in loader] == [["a"], ["b"], ["c"]]
    assert next(iter(loader))["lq"]["lq"].shape == (1, 3, 3, 5)


@pytest.mark.parametrize("scale", [None, 3])
def test_sizes_that_do_not_divide_are_cropped_and_it_is_said(tmp_path, scale):
    sizes = {"a": (9, 12), "b": (10, 12), "c": (9, 14), "d": (11, 13), "e": (10, 10)}
    for name, (height, width) in sizes.items():
        save(tmp_path / "gt" / f"{name}.png", height, width)
        save(tmp_path / "lq" / f"{name}.png", height // 3, width // 3)
        save(tmp_path / "up" / f"{name}.png", -(-height // 3), -(-width // 3))
    message = r"cropped 4 of 5 images at the bottom and right, .* the scale 3: b, c, d and 1 more"
    folders = {"lq": tmp_path / "lq", "up": tmp_path / "up"}
    with pytest.warns(UserWarning, match=message) as caught:
        data = PairedFolders(tmp_path / "gt", folders, scale)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert data.notes == [str(caught[0].message)]
    item = data[3]
    assert torch.equal(item["gt"], read_image(tmp_path / "gt" / "d.png")[:, :9, :12])
    assert torch.equal(item["lq"]["lq"], read_image(tmp_path / "lq" / "d.png"))
    assert torch.equal(item["lq"]["up"], read_image(tmp_path / "up" / "d.png")[:, :3, :4])


def test_scale_one(pairs):
    data = PairedFolders(pairs / "gt", pairs / "gt")
    assert data.scale == 1 and torch.equal(data[0]["gt"], data[0]["lq"]["lq"])


def test_folders_that_are_not_there_or_empty(pairs):
    (pairs / "empty").mkdir()
    (pairs / "empty" / "a.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no gt folder .*none"):
        PairedFolders(pairs / "none", pairs / "blur")
    with pytest.raises(FileNotFoundError, match=r"no lq folder 'blur' .*none"):
        PairedFolders(pairs / "gt", {"blur": pairs / "none"})
    with pytest.raises(ValueError, match=r"lq folder 'blur' .*empty has no image; .*\.png"):
        PairedFolders(pairs / "gt", {"blur": pairs / "empty"})
    with pytest.raises(ValueError, match=r"gt folder .*a\.png is a file"):
        PairedFolders(pairs / "gt" / "a.png", pairs / "blur")
    with pytest.raises(ValueError, match="lq is an empty mapping"):
        PairedFolders(pairs / "gt", {})


def test_names_that_do_not_match(pairs):
    (pairs / "blur" / "b.PNG").rename(pairs / "blur" / "z.PNG")
    with pytest.raises(ValueError, match=r"'blur' .* lacks b; .* b is z\.PNG; expected the names"):
        PairedFolders(pairs / "gt", {"noise": pairs / "noise", "blur": pairs / "blur"})
    save(pairs / "blur" / "b.png", 4, 6)
    with pytest.raises(ValueError, match=r"'blur' .* adds z"):
        PairedFolders(pairs / "gt", {"blur": pairs / "blur"})
    save(pairs / "gt" / "a.jpg")
    with pytest.raises(ValueError, match=r"gt folder .* has both a\.(jpg|png) and a\.(jpg|png)"):
        PairedFolders(pairs / "gt", pairs / "blur")


@pytest.mark.parametrize("height, width", [(4, 7), (2, 6), (4, 5), (8, 12), (1, 1)])
def test_sizes_that_do_not_fit(pairs, height, width):
    save(pairs / "blur" / "b.PNG", height, width)
    with pytest.raises(ValueError, match=rf"image 'b' is {height}×{width} in .*'blur' and 8×12"):
        PairedFolders(pairs / "gt", {"blur": pairs / "blur"})


@pytest.mark.parametrize("scale", [0, -2, 2.0, True, "2"])
def test_scales_that_are_none(pairs, scale):
    with pytest.raises(ValueError, match=r"scale is .*; expected an integer from 1 up"):
        PairedFolders(pairs / "gt", pairs / "blur", scale)


def test_a_wrong_scale(pairs):
    with pytest.raises(ValueError, match=r"image 'a' is 3×5 .* 6×10 .* a ratio of 4"):
        PairedFolders(pairs / "gt", pairs / "blur", 4)


def test_damaged_images_are_named(pairs):
    path = pairs / "blur" / "b.PNG"
    content = path.read_bytes()
    path.write_bytes(content[:60])
    data = PairedFolders(pairs / "gt", pairs / "blur")  # only the header is intact
    assert data[0]["name"] == "a"
    with pytest.raises(ValueError, match=r"b\.PNG cannot be read"):
        data[1]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.PNG cannot be read"):
        PairedFolders(pairs / "gt", pairs / "blur")


# Degradations by recipe


def recipes():
    return {"blur": Degradation(blur=2.0), "noise": Degradation(noise=0.1)}


@pytest.fixture
def photographs(tmp_path):
    for name in "abc":  # the same picture three times, so that only the noise differs
        save(tmp_path / "gt" / f"{name}.png", 24, 28)
    return tmp_path / "gt"


def test_recipes(photographs):
    data = DegradedFolder(photographs, recipes())
    assert (data.scale, data.names, data.notes) == (2, ["a", "b", "c"], [])
    item = data[0]
    assert torch.equal(item["gt"], read_image(photographs / "a.png"))
    assert torch.equal(item["lq"]["blur"], Degradation(blur=2.0)(item["gt"][None])[0])
    assert item["lq"]["noise"].shape == (3, 12, 14)
    batch = next(data.batches())
    assert batch["gt"].shape == (1, 3, 24, 28)
    assert torch.equal(batch["lq"]["noise"][0], item["lq"]["noise"])


def test_noise_differs_between_images_and_repeats(photographs):
    def noisy(seed):
        data = DegradedFolder(photographs, recipes(), seed=seed)
        return [data[position]["lq"]["noise"] for position in (2, 0, 1, -1)]

    first = noisy(0)
    assert all(torch.equal(a, b) for a, b in zip(first, noisy(0), strict=True))
    assert torch.equal(first[0], first[3])
    different = [*first[:3], *noisy(1)[:3]]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_recipes_crop_too(photographs):
    save(photographs / "d.png", 25, 27)
    with pytest.warns(UserWarning, match=r"1 of 4 images .* scale 2: d$") as caught:
        data = DegradedFolder(photographs, recipes())
    assert caught[0].filename == __file__ and len(data.notes) == 1
    assert torch.equal(data[3]["gt"], read_image(photographs / "d.png")[:, :24, :26])
    assert data[3]["lq"]["blur"].shape == (3, 12, 13)


def test_whole_sizes_give_no_warning(photographs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DegradedFolder(photographs, recipes())


@pytest.mark.parametrize(
    "degradations, seed, message",
    [
        ({}, 0, r"scales \{\}; expected one for all"),
        ({"a": Degradation(scale=2), "b": Degradation(scale=3)}, 0, r"'a': 2, 'b': 3"),
        ({"a": torch.relu}, 0, "scale is None"),
        ({"a": Degradation(scale=25)}, 0, r"a\.png is 24×28; expected at least the scale 25"),
        (recipes(), -1, "seed is -1"),
        (recipes(), 0.5, r"seed is 0\.5"),
    ],
)
def test_recipes_refused(photographs, degradations, seed, message):
    with pytest.raises(ValueError, match=message):
        DegradedFolder(photographs, degradations, seed)
