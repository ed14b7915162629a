import pytest
import torch
from safetensors.torch import save_file

from faigfast.io.tensor_file import load_tensors


@pytest.mark.parametrize("metadata", [{"sha256": "null"}, {"a": "[" * 100_000 + "]" * 100_000}])
def test_metadata_that_is_refused(tmp_path, metadata):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match=r"x\.safetensors is (damaged|truncated)"):
        load_tensors(path)


def test_names_and_devices_that_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="aaa is not a file"):
        load_tensors(tmp_path / ("a" * 300))
    with pytest.raises(ValueError, match="/proc/self/mem is truncated, damaged or of another kind"):
        load_tensors("/proc/self/mem")
