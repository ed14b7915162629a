"""Choice of a tile: timed once, stored by device and compiler, and shown by doctor."""

import json
from types import SimpleNamespace

import pytest
import torch

from faigfast.backend.gpu import triton_support as _triton
from faigfast.cli.doctor import examine

pytestmark = pytest.mark.skipif(
    bool(_triton.missing()), reason=f"choices were not tested: {_triton.missing()}"
)
GPU = torch.device("cuda")


@pytest.fixture
def tuning(tmp_path, monkeypatch):
    """The tuning module with a fake GPU, on which a tile takes as long as it has rows."""
    from faigfast.kernels import tuning

    monkeypatch.setenv("FAIGFAST_CACHE", str(tmp_path))
    monkeypatch.delenv("FAIGFAST_TUNE", raising=False)
    monkeypatch.setattr(tuning.TILES, "known", {})
    monkeypatch.setattr(tuning.TILES, "spent", 0.0)
    card = SimpleNamespace(name="Some GPU", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(tuning.TILES, "timer", lambda run, device: run())
    return tuning


def tiles(*rows):
    from faigfast.kernels.launch import Tile

    return [Tile(m, 16, 16) for m in rows]


def test_the_fastest_is_taken_and_remembered(tuning, monkeypatch):
    tried = []

    def attempt(tile):
        tried.append(tile.m)
        return float(tile.m)

    key = tuning.shape_key("conv_forward", "fp16", channels="64-64", pixels=1024)
    assert key == "conv_forward fp16 channels=64-64 pixels=1024"
    assert tuning.chosen(key, GPU, tiles(64, 16, 32), attempt).m == 16
    assert tuning.chosen(key, GPU, tiles(64, 16, 32), attempt).m == 16
    monkeypatch.setattr(tuning.TILES, "known", {})  # another process
    assert tuning.chosen(key, GPU, tiles(64, 16, 32), attempt).m == 16
    assert tried == [64, 16, 32]
    device = f"Some GPU sm_90, triton {_triton.version()}"
    kept = json.loads(tuning.TILES.path.read_text())[device][key]
    assert kept["name"].startswith("16 × 16 × 16, 4 warps") and len(kept["milliseconds"]) == 3
    shown = examine()["Triton"]
    assert shown[f"{device}, {key}"].startswith("16 × 16 × 16, 4 warps")
    assert shown["choices in"] == str(tuning.TILES.path)


def test_what_does_not_run_is_left_out(tuning):
    def attempt(tile):
        if tile.m == 16:
            raise RuntimeError("out of resource: shared memory")
        return float(tile.m)

    assert tuning.chosen("a", GPU, tiles(64, 16, 32), attempt).m == 32


def test_it_can_be_turned_off(tuning, monkeypatch):
    assert tuning.chosen("a", GPU, tiles(64, 16), lambda tile: float(tile.m)).m == 16
    monkeypatch.setenv("FAIGFAST_TUNE", "0")
    assert tuning.chosen("a", GPU, tiles(64, 16), None).m == 64
