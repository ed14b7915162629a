import copy
import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from faigfast.zoo import SRCNNStyle, SRResNet
from faigfast.zoo.checkpoints import load_model, load_pair, save_model


def network(width=4, blocks=1, seed=0):
    torch.manual_seed(seed)
    return SRResNet(width=width, blocks=blocks, scale=2)


def prefixed(state, prefix):
    return OrderedDict((prefix + name, value) for name, value in state.items())


def same(a, b):
    return list(a) == list(b) and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


class Tied(nn.Module):
    """A network of no known family, with two names of one weight and an integer buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3)
        self.second = nn.Conv2d(3, 3, 3)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.second(self.first(x)))


class Versioned(nn.Module):
    def get_extra_state(self):
        return {"version": 2}


# Reading


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_every_wrapping_and_prefix_is_read(tmp_path, key, prefix):
    net = network()
    stored = prefixed(net.state_dict(), prefix)
    path = tmp_path / "net.pth"
    torch.save(stored if key is None else {key: stored, "epoch": 3}, path)
    loaded = load_model(path)
    assert isinstance(loaded, SRResNet) and not loaded.training
    assert same(loaded.state_dict(), net.state_dict())
    source = loaded.faigfast_source
    assert (source.path, source.key, source.prefix) == (path, key, prefix)


def test_the_first_entry_that_holds_something_is_taken_and_said(tmp_path, caplog):
    ema, plain = network(seed=1), network(seed=2)
    path = tmp_path / "net.pth"
    torch.save({"params": plain.state_dict(), "params_ema": ema.state_dict()}, path)
    with caplog.at_level(logging.INFO, logger="faigfast"):
        loaded = load_model(path)
    assert same(loaded.state_dict(), ema.state_dict())
    assert str(loaded.faigfast_source) == "params_ema of net.pth"
    assert "params_ema of net.pth" in caplog.text
    torch.save({"params_ema": None, "params": plain.state_dict()}, path)
    assert load_model(path).faigfast_source.key == "params"
    torch.save(plain.state_dict(), path)
    assert str(load_model(path).faigfast_source) == "plain state dict of net.pth"


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net"])
def test_safetensors_are_known_by_content(tmp_path, name):
    net = SRCNNStyle(widths=(4, 6), scale=3)
    path = tmp_path / name
    save_file(net.state_dict(), path)
    loaded = load_model(path)
    assert isinstance(loaded, SRCNNStyle)
    assert same(loaded.state_dict(), net.state_dict())


@pytest.mark.parametrize("name", ["net.safetensors", "net.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_are_known_by_content(tmp_path, name, zipped):
    net = network()
    path = tmp_path / name
    torch.save(dict(net.named_parameters()), path, _use_new_zipfile_serialization=zipped)
    assert same(load_model(path).state_dict(), net.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_the_files(tmp_path, dtype):
    net = network().to(dtype)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    into = network(seed=1)
    into(torch.rand(1, 3, 4, 4)).sum().backward()
    for loaded in (load_model(tmp_path / "net.pth"), load_model(tmp_path / "net.pth", into)):
        assert same(loaded.state_dict(), net.state_dict())
        x = torch.rand(1, 3, 4, 4, dtype=dtype)
        assert torch.equal(loaded(x), net(x))
        loaded(x).sum().backward()


def test_loading_leaves_the_rng_alone(tmp_path):
    torch.save(network().state_dict(), tmp_path / "net.pth")
    rng = torch.get_rng_state()
    load_model(tmp_path / "net.pth")
    assert torch.equal(torch.get_rng_state(), rng)


def test_pair(tmp_path):
    baseline, target = network(seed=1), network(seed=2)
    torch.save({"params": baseline.state_dict()}, tmp_path / "a.pth")
    save_file(prefixed(target.state_dict(), "module."), tmp_path / "b.safetensors")
    a, b = load_pair(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert same(a.state_dict(), baseline.state_dict())
    assert same(b.state_dict(), target.state_dict())


# into=


def test_into_is_copied_never_changed(tmp_path):
    saved, into = Tied().train(), Tied().train()
    saved(torch.rand(2, 3, 8, 8))
    before = copy.deepcopy(into.state_dict())
    torch.save(saved.state_dict(), tmp_path / "a.pth")
    a, b = load_pair(tmp_path / "a.pth", tmp_path / "a.pth", into=into)
    assert into.training and same(into.state_dict(), before)
    assert not hasattr(into, "faigfast_source")
    for loaded in (a, b):
        assert type(loaded) is Tied and not loaded.training
        assert same(loaded.state_dict(), saved.state_dict())
        assert loaded.first.weight is loaded.second.weight
        assert loaded.norm.num_batches_tracked.item() == 1
    assert a.first.weight is not b.first.weight


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_into_may_be_wrapped(tmp_path, wrap, prefix):
    net = network(seed=3)
    torch.save(prefixed(net.state_dict(), prefix), tmp_path / "net.pth")
    loaded = load_model(tmp_path / "net.pth", into=wrap(network(seed=4)))
    assert next(iter(loaded.state_dict().values())).equal(net.conv_first.weight)
    assert len(loaded.state_dict()) == len(net.state_dict())


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: without(s, "norm.bias"),
            r"'norm\.bias' \[3\] is in `into` and not in .*net\.pth",
        ),
        (
            lambda s: {**s, "third.weight": torch.zeros(1)},
            r"'third\.weight' \[1\] is in .*net\.pth and not in `into`",
        ),
        (
            lambda s: {**s, "first.bias": torch.zeros(5)},
            r"'first\.bias' is \[3\] in `into` and \[5\] in .*net\.pth",
        ),
        (
            lambda s: {**s, "second.weight": s["second.weight"] + 1},
            "two values for 'first.weight' and 'second.weight'",
        ),
        (lambda s: {**s, "first.bias": torch.zeros(3, dtype=torch.int8)}, r"'first\.bias'.*int8"),
    ],
    ids=["missing", "unexpected", "shape", "untied", "integer"],
)
def test_into_that_does_not_fit(tmp_path, change, message):
    torch.save(change(Tied().state_dict()), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "net.pth", into=Tied())


def test_into_that_holds_more_than_tensors(tmp_path):
    torch.save(network().state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match="`into` holds '_extra_state', a dict"):
        load_model(tmp_path / "net.pth", into=Versioned())


def test_into_that_is_no_module(tmp_path):
    torch.save(network().state_dict(), tmp_path / "net.pth")
    with pytest.raises(TypeError, match=r"into is a type; expected a torch\.nn\.Module"):
        load_model(tmp_path / "net.pth", into=SRResNet)


# Writing


@pytest.mark.parametrize("key", ["params_ema", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip_under_the_users_keys_and_wrapping(tmp_path, key, prefix):
    net = network()
    stored = prefixed(net.state_dict(), prefix)
    stored.move_to_end(prefix + "conv_first.weight")  # another order
    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    torch.save(stored if key is None else {"epoch": 7, key: stored}, old)
    save_model(load_model(old), new, like=old)
    content = torch.load(new, weights_only=True)
    if key is not None:
        assert list(content) == ["epoch", key] and content["epoch"] == 7
        content = content[key]
    assert type(content) is OrderedDict
    assert same(content, stored)


def test_only_the_entry_that_was_read_is_replaced(tmp_path):
    ema, plain, edited = (network(seed=seed) for seed in range(3))
    path = tmp_path / "net.pth"
    torch.save({"params": plain.state_dict(), "params_ema": ema.state_dict()}, path)
    save_model(edited, path, like=path)
    content = torch.load(path, weights_only=True)
    assert same(content["params_ema"], edited.state_dict())
    assert same(content["params"], plain.state_dict())


def test_safetensors_keep_prefix_and_metadata(tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    stored = prefixed(network().state_dict(), "module.")
    save_file(stored, old, metadata={"author": "me"})
    save_model(load_model(old), new, like=old)
    assert new.read_bytes() == old.read_bytes()
    with safe_open(new, framework="pt") as file:
        assert file.metadata() == {"author": "me"}


def test_the_suffix_chooses_the_format(tmp_path):
    net = network()
    wrapped, flat = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save({"params": prefixed(net.state_dict(), "module.")}, wrapped)
    save_model(net, flat, like=wrapped)
    assert load_file(flat).keys() == prefixed(net.state_dict(), "module.").keys()
    save_model(net, tmp_path / "back.ckpt", like=flat)
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert back.keys() == load_file(flat).keys()
    save_model(net, tmp_path / "plain.pt")
    assert same(torch.load(tmp_path / "plain.pt", weights_only=True), net.state_dict())


@pytest.mark.parametrize("name", ["tied.safetensors", "tied.pth"])
def test_tied_weights(tmp_path, name):
    net = Tied()
    save_model(net, tmp_path / name)
    loaded = load_model(tmp_path / name, into=Tied())
    assert same(loaded.state_dict(), net.state_dict())
    save_model(loaded, tmp_path / f"again_{name}", like=tmp_path / name)
    again = load_model(tmp_path / f"again_{name}", into=Tied())
    assert same(again.state_dict(), net.state_dict())


def test_a_wrapper_alone_does_not_reach_the_file(tmp_path):
    net = network()
    save_model(nn.DataParallel(net), tmp_path / "net.safetensors")
    assert same(load_file(tmp_path / "net.safetensors"), dict(sorted(net.state_dict().items())))


def test_memory_layout_and_wrappers_do_not_reach_the_file(tmp_path):
    net = network()
    torch.save(net.state_dict(), tmp_path / "old.pth")
    other = nn.DataParallel(copy.deepcopy(net).to(memory_format=torch.channels_last))
    save_model(other, tmp_path / "new.pth", like=tmp_path / "old.pth")
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    assert same(content, net.state_dict())
    assert all(tensor.is_contiguous() for tensor in content.values())


@pytest.mark.parametrize("name", ["net.bin", "net", "net.txt"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ValueError, match=r"expected \.safetensors or one of \.pth"):
        save_model(network(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved(tmp_path):
    path, old = tmp_path / "net.pth", tmp_path / "old.pth"
    torch.save(network().state_dict(), old)
    with pytest.raises(TypeError, match=r"model is a dict; expected a torch\.nn\.Module"):
        save_model({}, path)
    with pytest.raises(
        ValueError, match=r"'conv_first\.weight' is \[6, 3.* `model` and .*old\.pth"
    ):
        save_model(network(width=6), path, like=old)
    with pytest.raises(ValueError, match="model holds '_extra_state', a dict"):
        save_model(Versioned(), path)
    with pytest.raises(TypeError, match="path is a NoneType"):
        save_model(network(), None)
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unwritable_output(tmp_path, suffix):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(ValueError, match=r"file.*a path in a folder that can be written"):
        save_model(network(), blocker / f"net{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        save_model(network(), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", folder.name])


def test_a_folder_that_comes_in_the_way_while_writing(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    original = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: original(*args) or path.mkdir())
    with pytest.raises(ValueError, match=r"net\.pth cannot be written"):
        save_model(network(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    save_model(network(), path)
    before = path.read_bytes()

    def fail(content, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(network(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
