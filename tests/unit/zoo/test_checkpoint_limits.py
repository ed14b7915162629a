"""Checkpoint files made to hang, to fill the memory or to load damaged weights."""

import os
import pickle
import socket
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faigfast.zoo import SRCNNStyle, SRResNet, SwinIR
from faigfast.zoo.checkpoint_limits import MAX_TENSORS
from faigfast.zoo.checkpoints import load_model, read_checkpoint


def state():
    torch.manual_seed(0)
    return SRResNet(width=4, blocks=1, scale=2).state_dict()


def rewrite(path, compression=zipfile.ZIP_STORED, **replaced):
    """Write a checkpoint's zip archive again, with other members by the end of their names."""
    torch.save(state(), path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, replaced.get(name.rpartition("/")[2], content))


def refusal(path, within=20.0, kind=ValueError):
    started = time.perf_counter()
    with pytest.raises(kind) as error:
        load_model(path)
    assert time.perf_counter() - started < within
    message = str(error.value)
    assert len(message) < 3000 and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["data/0", "data.pkl"])
def test_a_flipped_bit_is_found(tmp_path, name):
    path = tmp_path / "net.pth"
    torch.save(state(), path)
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith(name))
        content = archive.read(member)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(content) + len(content) // 2] ^= 1
    path.write_bytes(damaged)
    message = refusal(path)
    assert str(path) in message and "CRC32" in message and name in message


def test_compressed_members_are_refused(tmp_path):
    rewrite(tmp_path / "net.pth", zipfile.ZIP_DEFLATED)
    assert "is compressed; expected stored members" in refusal(tmp_path / "net.pth")


def test_members_larger_than_the_file_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(state(), path)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = (10**9).to_bytes(4, "little") * 2
    path.write_bytes(content)
    assert "expected at most the file's" in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_a_million_marks_is_refused(tmp_path, zipped):
    path = tmp_path / "net.pth"
    marks = b"\x80\x02" + b"(" * 1_000_000 + b"."
    rewrite(path, **{"data.pkl": marks}) if zipped else path.write_bytes(marks)
    assert "marks" in refusal(path)


def test_a_large_pickle_is_refused(tmp_path):
    rewrite(tmp_path / "net.pth", **{"data.pkl": pickle.dumps(bytes(70 * 2**20))})
    assert "its data.pkl has 734" in refusal(tmp_path / "net.pth")


def test_too_many_tensors_are_refused_by_the_header(tmp_path):
    path = tmp_path / "net.safetensors"
    zero = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    names = ",".join(f'"{i}":{zero}' for i in range(2 * MAX_TENSORS))
    header = f"{{{names}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert f"holds {2 * MAX_TENSORS} tensors" in refusal(path)


@pytest.mark.parametrize(
    "value, message",
    [
        (torch.zeros(1).expand(20_000), "its values repeated"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "'a' as a nested tensor"),
    ],
)
def test_tensors_without_a_value_for_every_element(tmp_path, value, message):
    torch.save({"a": value}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=rf"net\.pth holds .*{message}"):
        read_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize("length", [3_000_000, 1_001])
def test_long_names_are_shortened(tmp_path, length):
    path = tmp_path / "net.safetensors"
    save_file({"n" * length: torch.zeros(1)}, path)
    message = refusal(path)
    assert len(message) < 500 and f"({length} long)" in message


def test_many_prefixes_are_refused(tmp_path):
    torch.save({"module." * 100_000 + "weight": torch.zeros(1)}, tmp_path / "net.pth")
    assert "expected at most 1000 characters" in refusal(tmp_path / "net.pth")


def wide():
    net = state()
    return {**net, "conv_first.weight": torch.zeros(20_000, 3, 3, 3)}


def wide_swin():
    net = SwinIR(width=4, depths=(1,), heads=(2,), window=4, scale=2, image_size=8).state_dict()
    table = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    return {**net, table: torch.zeros(599**2, 2)}  # windows of 300: 300⁴ positions


def deep():
    blocks = {f"body.{i}.conv1.weight": torch.zeros(4, 4, 3, 3) for i in range(5_000)}
    return {**state(), **blocks}


def views():
    net = SRCNNStyle(widths=(600,) * 20).state_dict()
    largest = torch.zeros(2400 * 600 * 9)
    return {k: largest[: v.numel()].view(v.shape) for k, v in net.items()}


@pytest.mark.parametrize("make", [wide, wide_swin, deep, views])
def test_networks_larger_than_their_file_are_not_built(tmp_path, make):
    torch.save(make(), tmp_path / "net.pth")
    assert str(tmp_path / "net.pth") in refusal(tmp_path / "net.pth")


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe.pth")
    os.symlink("loop.pth", "loop.pth")
    torch.save(nn.Conv2d(1, 1, 1).state_dict(), "net.pth")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.pth")
        assert refusal("socket.pth").startswith("socket.pth is a socket; expected")
    assert refusal("pipe.pth").startswith("pipe.pth is a named pipe; expected")
    assert refusal("loop.pth").startswith("loop.pth is a link that leads to itself; expected")
    assert refusal("/dev/zero").startswith("/dev/zero is a device; expected")
    assert "too long for a path, 5000 characters" in refusal("n" * 5000)
    assert refusal("a\0b").startswith(r"the path 'a\x00b' has a NUL character; expected")
    assert "a folder of the path is a file" in refusal("net.pth/inside", kind=FileNotFoundError)
    assert refusal("a\nb", kind=FileNotFoundError).startswith(r"there is no file 'a\nb'; expected")
    if os.path.exists("/proc/self/mem"):
        assert refusal("/proc/self/mem").startswith("/proc/self/mem cannot be read")
