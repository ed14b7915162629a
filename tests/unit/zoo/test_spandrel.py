import importlib
import time

import pytest
import torch
from cases.spandrel import import_spandrel
from torch import nn

import faigfast
from faigfast.zoo import spandrel as loader
from faigfast.zoo.checkpoints import load_model, load_pair, save_model


@pytest.fixture
def package():
    return import_spandrel()


def arch(name, extra=False):
    start = "spandrel_extra_arches" if extra else "spandrel"
    return importlib.import_module(f"{start}.architectures.{name}")


def safmn(seed=0, scale=2):
    torch.manual_seed(seed)
    return arch("SAFMN").SAFMN(dim=8, n_blocks=2, upscaling_factor=scale).eval()


def descriptors(package, seeds=(0, 1)):
    return [package.MAIN_REGISTRY.load(safmn(seed).state_dict()) for seed in seeds]


def test_a_file_of_spandrel(package, tmp_path):
    net, path = safmn(), tmp_path / "net.pth"
    torch.save({"params_ema": net.state_dict()}, path)
    x = torch.rand(1, 3, 16, 16)
    before = torch.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is type(net) and not loaded.training
    assert torch.equal(loaded(x), net(x))
    assert (loaded.scale, loaded.channels) == (2, 3)
    assert str(loaded.faigfast_source) == "params_ema of net.pth"


def test_a_file_of_half_precision_gives_such_a_network(package, tmp_path):
    torch.save(safmn().half().state_dict(), tmp_path / "net.pth")
    assert {p.dtype for p in load_model(tmp_path / "net.pth").parameters()} == {torch.float16}


def test_extra_architectures(package, tmp_path):
    torch.manual_seed(0)
    net = arch("Restormer", extra=True).Restormer(dim=8, num_blocks=[1] * 4, heads=[1, 2, 2, 2])
    torch.save(net.state_dict(), tmp_path / "net.pth")
    known = len(package.MAIN_REGISTRY)
    assert type(load_model(tmp_path / "net.pth")) is type(net)
    assert len(package.MAIN_REGISTRY) == known


def test_a_pair_from_files_to_scores_and_back(package, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        torch.save(safmn(seed).state_dict(), tmp_path / f"{name}.pth")
    baseline, target = load_pair(tmp_path / "a.pth", tmp_path / "b.pth")
    batch = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    result = faigfast.attribute(baseline, target, batch, steps=2)
    edited = result.top("lq", 0.1).swap(baseline, target)
    save_model(edited, tmp_path / "edited.pth", like=tmp_path / "b.pth")
    assert torch.equal(load_model(tmp_path / "edited.pth")(batch[0]), edited(batch[0]))


def test_descriptors_are_networks(package, tmp_path):
    pair = descriptors(package)
    modules = [descriptor.model for descriptor in pair]
    batch = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    result = faigfast.attribute(*pair, batch, steps=2)
    assert torch.equal(result.scores(), faigfast.attribute(*modules, batch, steps=2).scores())
    assert torch.equal(faigfast.Attributor(*pair, steps=2)(batch).scores(), result.scores())
    filters = result.top("lq", 0.1)
    edited, same = filters.swap(*pair), filters.swap(*modules)
    assert torch.equal(edited(batch[0]), same(batch[0]))
    save_model(pair[0], tmp_path / "net.safetensors")
    assert torch.equal(load_model(tmp_path / "net.safetensors")(batch[0]), modules[0](batch[0]))
    assert type(load_model(tmp_path / "net.safetensors", into=pair[0])) is type(modules[0])


def test_names_that_the_class_uses_stay(package):
    class Scaled(nn.Module):
        scale = "own"

    network = Scaled()
    loader.set_numbers(network, scale=4, channels=1)
    assert (network.scale, network.channels) == ("own", 1)


def test_a_network_that_no_one_knows(package, tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net.pth: no known .* architectures of spandrel fits"):
        load_model(tmp_path / "net.pth")


def test_a_network_that_spandrel_recognises_and_cannot_build(package, tmp_path):
    state = safmn().state_dict()
    state["to_feat.weight"] = state["to_feat.weight"][:, :, :2]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"spandrel takes it for SAFMN and fails: RuntimeError"):
        load_model(tmp_path / "net.pth")


def test_a_small_file_of_a_huge_network(package, tmp_path):
    state = safmn().state_dict()
    state["to_feat.weight"] = torch.empty(10**9, 0, 3, 3)
    torch.save(state, tmp_path / "net.pth")
    start = time.perf_counter()
    with pytest.raises(ValueError, match="SAFMN and fails: ValueError: its network is far larger"):
        load_model(tmp_path / "net.pth")
    assert time.perf_counter() - start < 20


def test_names_that_confuse_spandrel(package, monkeypatch, tmp_path):
    class Confused:
        def architectures(self, order):
            raise KeyError(order)

    monkeypatch.setattr(loader, "_registry", Confused)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match="none of its architectures and fails: KeyError"):
        load_model(tmp_path / "net.pth")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"not installed: pip install 'faigfast\[spandrel\]'$"):
        load_model(tmp_path / "net.pth")


def test_a_package_that_cannot_be_imported(monkeypatch):
    def broken():
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(loader, "find_spec", lambda name: object())
    monkeypatch.setattr(loader, "_registry", broken)
    with pytest.raises(ValueError, match=r"cannot be imported: RuntimeError: operator torchvision"):
        loader.spandrel_network({}, 0)


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20)])
def test_a_constructor_that_asks_for_more_memory_than_the_file(shape):
    start = time.perf_counter()
    with pytest.raises(ValueError, match="far larger than the file"), loader.Limits(1000, 3):
        torch.zeros(shape)
    assert time.perf_counter() - start < 20


def test_a_constructor_that_makes_layers_without_end():
    with pytest.raises(ValueError, match="far larger than the file"), loader.Limits(1000, 3):
        while True:
            nn.Linear(1, 1)
