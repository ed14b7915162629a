"""Checkpoints that are missing, damaged, malicious, of another kind or another network."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faigfast.zoo import SRCNNStyle, SRResNet
from faigfast.zoo.checkpoints import load_model, load_pair, read_checkpoint, save_model


def network(width=4, blocks=1):
    torch.manual_seed(0)
    return SRResNet(width=width, blocks=blocks, scale=2)


@pytest.mark.parametrize(
    "target, message",
    [
        (
            network(width=6),
            r"'conv_first\.weight' is \[4, 3, 3, 3\] in the baseline .*a\.pth and "
            r"\[6, 3, 3, 3\] in the target .*b\.pth",
        ),
        (network(blocks=2), r"'body\.1\.conv1\.weight' \[.*\] is in .*b\.pth and not in .*a\.pth"),
        (network(blocks=0), r"'body\.0\.conv1\.weight' \[.*\] is in .*a\.pth and not in .*b\.pth"),
        (SRCNNStyle(widths=(4, 6)), r"'.*' \[.*b\.pth and not in .*a\.pth; .*one architecture"),
    ],
    ids=["width", "deeper", "shallower", "family"],
)
def test_mismatched_pair(tmp_path, target, message):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    torch.save({"params": target.state_dict()}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=message):
        load_pair(tmp_path / "a.pth", tmp_path / "b.pth")


class Hostile:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


class HostileMapping(dict):
    def __reduce__(self):
        return exec, (f"open({str(self['witness'])!r}, 'w')",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("hide", ["whole", "entry", "state", "legacy", "pickle0", "pickle4"])
@pytest.mark.parametrize("kind", [Hostile, HostileMapping])
def test_hostile_pickles_do_not_run(tmp_path, hide, kind):
    witness, path = tmp_path / "ran", tmp_path / "net.pth"
    trap = Hostile(witness) if kind is Hostile else HostileMapping(witness=witness)
    if hide.startswith("pickle"):
        path.write_bytes(pickle.dumps(trap, protocol=int(hide[-1])))
    elif hide == "whole":
        torch.save(trap, path)
    elif hide == "entry":
        torch.save({"params": network().state_dict(), "optimizer": trap}, path)
    else:
        state = {**network().state_dict(), "extra": trap}
        torch.save(state, path, _use_new_zipfile_serialization=hide == "state")
    for load in (load_model, lambda path: load_pair(path, path), read_checkpoint):
        with pytest.raises(ValueError, match=r"net\.pth"):
            load(path)
    assert not witness.exists()
    torch.load(path, weights_only=False) if hide == "whole" else None
    assert witness.exists() == (hide == "whole")  # the exploit works when it is loaded


def test_whole_pickled_modules_are_refused(tmp_path):
    torch.save(network(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"SRResNet.*refused.*torch\.save\(model\.state_dict\(\)"):
        load_model(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    module = nn.Conv2d(1, 1, 1)
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 1, 2, 2)), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt cannot be read"):
        load_model(tmp_path / "net.pt")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
def test_truncated_files(tmp_path, share, suffix):
    path = tmp_path / f"net.{suffix}"
    if suffix == "safetensors":
        save_file(network().state_dict(), path)
    else:
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=suffix == "pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"net\.{suffix} (cannot be read|begins with).*"):
        load_model(path)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"PK"), "cannot be read"),
        (lambda path: path.write_text("a text file\n"), "neither a PyTorch nor a safetensors"),
        (lambda path: path.write_bytes(b"\x08" + bytes(7) + b"{not json"), "damaged"),
        (write_zip, "cannot be read"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: torch.save(torch.zeros(3), path), "holds a Tensor; expected a dict"),
        (lambda path: torch.save([torch.zeros(3)], path), "holds a list; expected a dict"),
        (lambda path: torch.save({}, path), "is an empty dict"),
        (lambda path: save_file({}, path), "is an empty dict"),
        (lambda path: torch.save({"params": {}, "epoch": 1}, path), "holds 'params', a dict"),
        (lambda path: torch.save({"epoch": 1}, path), "holds 'epoch', a int; expected a dict"),
        (lambda path: torch.save({1: torch.zeros(1)}, path), "holds 1, a Tensor"),
        (lambda path: torch.save({"params": {"lr": 0.1}}, path), "'params' of .* holds 'lr'"),
        (lambda path: torch.save({"a": torch.zeros(1, device="meta")}, path), r"'a' .* on meta"),
        (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), r"'a' as torch\.sparse"),
        (lambda path: torch.save({"a.weight": torch.zeros(1)}, path), "no known network.*into="),
    ],
)
def test_files_of_the_wrong_kind(tmp_path, write, message):
    path = tmp_path / "net.pth"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    path = tmp_path / "net.pth"
    with pytest.raises(FileNotFoundError, match=r"no file .*net\.pth"):
        load_model(path)
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match=r"no file .*net\.pth"):
        load_pair(tmp_path / "a.pth", path)
    with pytest.raises(FileNotFoundError, match=r"no file .*net\.pth"):
        save_model(network(), tmp_path / "b.pth", like=path)
    assert not (tmp_path / "b.pth").exists()


def test_what_is_no_path(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(TypeError, match="path is a NoneType; expected the path of a file"):
        load_model(None)
    with pytest.raises(TypeError, match="b is a list; expected the path of a file"):
        load_pair(tmp_path / "a.pth", [])
    with pytest.raises(ValueError, match="`b` is an empty dict; expected a dict of tensors"):
        load_pair(tmp_path / "a.pth", {})
    with pytest.raises(TypeError, match="like is a int; expected the path of a file"):
        save_model(network(), tmp_path / "b.pth", like=3)
