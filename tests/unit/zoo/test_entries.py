"""Which entry of a checkpoint is taken, by default and by `key=`, and which prefixes go."""

import logging
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from faigfast.zoo import RRDBNet, SRCNNStyle, SRResNet
from faigfast.zoo.checkpoints import load_model, load_pair, read_checkpoint, save_model
from faigfast.zoo.entries import ENTRIES, find_entry


def network(seed=0):
    torch.manual_seed(seed)
    return SRResNet(width=4, blocks=1, scale=2)


def states(number):
    return [network(seed).state_dict() for seed in range(number)]


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_known(tmp_path, name):
    (state,) = states(1)
    torch.save({"epoch": 1, name: state}, tmp_path / "net.pth")
    loaded = load_model(tmp_path / "net.pth")
    assert loaded.faigfast_source.key == name and loaded.faigfast_source.is_plain
    assert same(loaded.state_dict(), state)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("params", "params-ema"), "params-ema"),
        (("params", "params_ema"), "params_ema"),
        (("ema", "model"), "ema"),
        (("netG", "netG_ema"), "netG_ema"),
        (("state_dict", "params"), "params"),
        (("net", "other"), "net"),
    ],
)
def test_averages_come_first_and_the_others_are_named(tmp_path, caplog, names, taken):
    first, second = states(2)
    path = tmp_path / "net.pth"
    torch.save(dict(zip(names, (first, second), strict=True)), path)
    with caplog.at_level(logging.INFO, logger="faigfast"):
        loaded = load_model(path)
    (other,) = set(names) - {taken}
    note = f"took {taken} of net.pth; passed over {other}"
    assert loaded.faigfast_source.note == note and note in caplog.text
    assert loaded.faigfast_source.passed_over == (other,)
    chosen = load_model(path, key=other)
    assert chosen.faigfast_source.is_plain and chosen.faigfast_source.key == other
    assert same(chosen.state_dict(), (first, second)[names.index(other)])


def test_nested_entries(tmp_path):
    plain, average, critic = states(3)
    path = tmp_path / "net.pth"
    inner = {"model": plain, "ema": average}
    torch.save({"generator": inner, "discriminator": critic, "step": 3}, path)
    loaded = load_model(path)
    assert str(loaded.faigfast_source) == "generator.ema of net.pth"
    assert loaded.faigfast_source.passed_over == ("discriminator", "generator.model")
    for key, state in (("generator.model", plain), ("discriminator", critic)):
        assert same(load_model(path, key=key).state_dict(), state)
    edited = network(7)
    save_model(edited, tmp_path / "new.pth", like=path, key="generator.model")
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    assert content["step"] == 3 and same(content["discriminator"], critic)
    assert same(content["generator"]["ema"], average)
    assert same(content["generator"]["model"], edited.state_dict())


def test_one_dict_of_another_name(tmp_path):
    (state,) = states(1)
    torch.save({"my weights": state, "epoch": 1}, tmp_path / "net.pth")
    assert load_model(tmp_path / "net.pth").faigfast_source.key == "my weights"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_part_of_a_flat_dict(tmp_path, suffix):
    one, two = states(2)
    flat = {f"generator.ema.{k}": v for k, v in one.items()}
    flat |= {f"discriminator.{k}": v for k, v in two.items()}
    path, new = tmp_path / f"net{suffix}", tmp_path / f"new{suffix}"
    save_file(flat, path) if suffix == ".safetensors" else torch.save(flat, path)
    with pytest.raises(ValueError, match=r"generator, discriminator|discriminator, generator"):
        load_model(path)
    loaded = load_model(path, key="generator.ema")
    assert same(loaded.state_dict(), {k: one[k] for k in loaded.state_dict()})
    edited = network(5)
    save_model(edited, new, like=path, key="generator.ema")
    state = edited.state_dict()
    written = read_checkpoint(new, key="generator.ema").state
    assert all(torch.equal(written[name], state[name]) for name in state)
    rest = read_checkpoint(new, key="discriminator").state
    assert all(torch.equal(rest[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        ("netG", ValueError, r"key is 'netG', no entry of .*net\.pth; expected one of 'params'"),
        ("", ValueError, "key is ''"),
        ("params.ema", ValueError, "'params.ema'"),
        ("x" * 5000, ValueError, r"\(5000 long\)"),
        (3, TypeError, "key is a int; expected the name of an entry"),
    ],
)
def test_wrong_keys(tmp_path, key, kind, message):
    torch.save({"params": network().state_dict(), "epoch": 1}, tmp_path / "net.pth")
    for load in (load_model, read_checkpoint, lambda path, key: load_pair(path, path, key=key)):
        with pytest.raises(kind, match=message) as error:
            load(tmp_path / "net.pth", key=key)
        assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match="key is 'params' without `like`"):
        save_model(network(), tmp_path / "new.pth", key="params")


def test_each_file_of_a_pair_has_a_key_of_its_own(tmp_path):
    one, two, three = states(3)
    torch.save({"params": one, "params_ema": two}, tmp_path / "a.pth")
    torch.save({"netG": three, "netG_ema": two}, tmp_path / "b.pth")
    files = tmp_path / "a.pth", tmp_path / "b.pth"
    a, b = load_pair(*files, key=("params", "netG"))
    assert same(a.state_dict(), one) and same(b.state_dict(), three)
    a, b = load_pair(*files, key=(None, "netG"))
    assert a.faigfast_source.key == "params_ema" and same(b.state_dict(), three)
    a, b = load_pair(files[0], files[0], key=["params", "params_ema"])
    assert same(a.state_dict(), one) and same(b.state_dict(), two)


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        (("params", "netG"), ValueError, r"key is 'netG', no entry of .*net\.pth"),
        (("params", 3), TypeError, "key is a int; expected the name of an entry"),
        (("params",), ValueError, "key holds 1 items; expected the name of an entry, or a tuple"),
        (("params",) * 3, ValueError, "key holds 3 items"),
        ({"a": "params", "b": "params"}, TypeError, "key is a dict; expected the name of an entry"),
    ],
)
def test_wrong_keys_of_a_pair(tmp_path, key, kind, message):
    torch.save({"params": network().state_dict(), "epoch": 1}, tmp_path / "net.pth")
    with pytest.raises(kind, match=message):
        load_pair(tmp_path / "net.pth", tmp_path / "net.pth", key=key)


def test_dicts_within_themselves_are_searched_once():
    content = {}
    content["model"] = content["net"] = content["other"] = content
    with pytest.raises(ValueError, match="no entry of file"):
        find_entry(content, "params", "file")
    assert len(find_entry(content, None, "file").path) <= 8
    shared = {"a": 1}
    for _ in range(40):
        shared = {"model": shared, "net": shared}
    with pytest.raises(ValueError, match="no entry of file"):
        find_entry(shared, "params", "file")
    assert find_entry(shared, None, "file").passed_over == ()


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    ["model.", "net.", "generator.", "netG.", "params_ema.", "module.model.", "netG.module.net."],
)
def test_prefixes_of_all_names_go(tmp_path, prefix):
    (state,) = states(1)
    stored = OrderedDict((prefix + name, value) for name, value in state.items())
    path = tmp_path / "net.pth"
    torch.save(stored, path)
    loaded, own = load_model(path), load_model(path, into=network(3))
    for net in (loaded, own):
        assert same(net.state_dict(), state) and net.faigfast_source.prefix == prefix
    save_model(loaded, tmp_path / "new.pth", like=path)
    assert same(torch.load(tmp_path / "new.pth", weights_only=True), stored)


def test_names_that_begin_like_a_prefix_stay():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Conv2d(3, 3, 3)

    holder = Holder()
    loaded = load_model(holder.state_dict(), into=Holder())
    assert loaded.faigfast_source.prefix == ""
    assert torch.equal(loaded.model.weight, holder.model.weight)


def test_a_pair_with_two_kinds_of_prefixes(tmp_path):
    one, two = states(2)
    a, b = load_pair({f"netG.{k}": v for k, v in one.items()}, {"params": two})
    assert same(a.state_dict(), one) and same(b.state_dict(), two)


def test_a_state_dict_of_an_averaged_model(tmp_path):
    average = AveragedModel(network())
    state = {"ema": average.state_dict()}
    torch.save(state, tmp_path / "net.pth")
    loaded = load_model(tmp_path / "net.pth")
    assert same(loaded.state_dict(), average.module.state_dict())
    save_model(loaded, tmp_path / "new.pth", like=tmp_path / "net.pth")
    assert same(torch.load(tmp_path / "new.pth", weights_only=True)["ema"], state["ema"])


# State dicts in memory


def test_state_dicts_in_memory():
    net = network()
    state = dict(net.named_parameters())
    loaded = load_model(state)
    assert str(loaded.faigfast_source) == "all of a state dict in memory"
    assert same(loaded.state_dict(), net.state_dict())
    assert loaded.conv_first.weight.data_ptr() != net.conv_first.weight.data_ptr()
    ema = load_model({"params": network(1).state_dict(), "params_ema": state})
    assert str(ema.faigfast_source) == "params_ema of a state dict in memory"
    with pytest.raises(ValueError, match="`path` is an empty dict"):
        load_model({})
    with pytest.raises(ValueError, match="`path` holds 1, a Tensor"):
        load_model({1: torch.zeros(1)})
    with pytest.raises(ValueError, match="the state dict: no known network"):
        load_model({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="in the baseline the state dict"):
        load_pair(state, SRResNet(width=6, blocks=1, scale=2).state_dict())


# Numbers of numpy


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "number",
    [np.float64(31.5), np.float32(0.1), np.int64(-3), np.bool_(True), np.dtype(">i4").type(7)],
)
def test_numbers_of_numpy_beside_the_weights(tmp_path, number, zipped):
    (state,) = states(1)
    path = tmp_path / "net.pth"
    torch.save({"params": state, "psnr": number}, path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path)
    assert same(loaded.state_dict(), state)
    save_model(loaded, tmp_path / "new.pth", like=path)
    psnr = torch.load(tmp_path / "new.pth", weights_only=False)["psnr"]
    assert psnr == number and psnr.dtype == number.dtype


class Trap:
    """Pickles as a call of numpy's functions with other arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


SCALAR = np.float64(0).__reduce__()[0]


@pytest.mark.parametrize(
    "trap",
    [
        Trap(np.dtype, "V99999999999999"),
        Trap(np.dtype, "O"),
        Trap(np.dtype, "f8,f8"),
        Trap(np.dtype, "f400"),
        Trap(np.dtype, {"names": ["a"], "formats": ["O"]}),
        Trap(SCALAR, np.dtype("f8")),
        Trap(SCALAR, np.dtype("f8"), b"1"),
        Trap(SCALAR, 8, b"12345678"),
        Trap(np.zeros, 10**12),
    ],
)
def test_other_calls_of_numpy_are_refused(tmp_path, trap):
    torch.save({"params": network().state_dict(), "psnr": trap}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net\.pth (cannot be read|asks for)"):
        load_model(tmp_path / "net.pth")


# Types


@pytest.mark.parametrize("into", [None, network(1)])
def test_mixed_types_are_read_as_float32(tmp_path, into, caplog):
    (state,) = states(1)
    mixed = {k: v.half() if k.endswith("weight") else v for k, v in state.items()}
    torch.save(mixed, tmp_path / "net.pth")
    with caplog.at_level(logging.INFO, logger="faigfast"):
        loaded = load_model(tmp_path / "net.pth", into=into)
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}
    assert loaded.faigfast_source.remarks == ("float16 and float32 read as float32",)
    assert "float16 and float32 read as float32" in caplog.text
    assert torch.equal(loaded.conv_first.weight, state["conv_first.weight"].half().float())


@pytest.mark.parametrize("dtype", ["float64", torch.bfloat16, "float16", torch.float32])
def test_dtype_chooses(tmp_path, dtype):
    net = network()
    save_model(net, tmp_path / "net.safetensors")
    path = tmp_path / "net.safetensors"
    wanted = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    for loaded in (load_model(path, dtype=dtype), *load_pair(path, path, dtype=dtype)):
        assert {v.dtype for v in loaded.state_dict().values()} == {wanted}
        assert loaded.faigfast_source.is_plain == (wanted == torch.float32)


@pytest.mark.parametrize(
    ("dtype", "kind", "message"),
    [
        ("half", ValueError, "dtype is 'half'; expected one of float64, float32"),
        (torch.int64, ValueError, "dtype is 'int64'"),
        (16, TypeError, "dtype is a int"),
    ],
)
def test_wrong_types(dtype, kind, message):
    with pytest.raises(kind, match=message):
        load_model(network().state_dict(), dtype=dtype)


def test_float8_is_read_as_float32():
    state = {k: v.to(torch.float8_e4m3fn) for k, v in network().state_dict().items()}
    loaded = load_model(state)
    assert loaded.conv_first.weight.dtype == torch.float32
    assert loaded.faigfast_source.remarks == ("float8_e4m3fn read as float32",)


def test_prefixes_do_not_hide_a_family_behind_another():
    net = RRDBNet(width=4, blocks=1, growth=2)
    loaded = load_model({f"params_ema.{k}": v for k, v in net.state_dict().items()})
    assert type(loaded) is RRDBNet
    assert type(load_model({f"net.{k}": v for k, v in SRCNNStyle((4, 6)).state_dict().items()}))
