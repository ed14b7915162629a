"""FilterSet: swaps, sets of indices, and their files."""

import copy

import numpy as np
import pytest
import torch
from cases.networks import kinked, pair, randomise, smooth, untouched
from torch import nn
from torch.nn.utils import parametrizations

import faigfast
from faigfast import FilterIndex, FilterSet
from faigfast.zoo import SRResNet

# --- swap


def some(net, count=7, **names):
    index = FilterIndex.of(net)
    chosen = torch.randperm(len(index), generator=torch.Generator().manual_seed(3))[:count]
    return FilterSet(chosen, len(index), index.fingerprint, **names)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, -0.5, 1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_swap_by_hand(strength, dtype):
    baseline, target = pair(lambda: SRResNet(width=4, blocks=1, scale=2), dtype)
    filters = some(target)
    with untouched(baseline, target):
        edited = filters.swap(baseline, target, strength)
    expected = {key: value.clone() for key, value in target.state_dict().items()}
    for flat in filters.indices.tolist():
        key, row, column = FilterIndex.of(target).locate(flat)
        low, high = (net.state_dict()[key][row, column] for net in (baseline, target))
        expected[key][row, column] = low + strength * (high - low)
    for key, value in edited.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)
        kept = torch.ones(value.shape, dtype=torch.bool)
        for flat in filters.indices.tolist():
            where, row, column = FilterIndex.of(target).locate(flat)
            if where == key:
                kept[row, column] = False
        assert torch.equal(value[kept], target.state_dict()[key][kept]), "others stay to the bit"
    assert type(edited) is type(target) and edited is not target
    assert not any(
        a.data_ptr() == b.data_ptr()
        for a, b in zip(edited.parameters(), target.parameters(), strict=True)
    )


def test_swap_at_0_and_1_is_exact():
    baseline, target = pair(kinked, torch.float32)
    with torch.no_grad():
        baseline[0].weight[0, 0], target[0].weight[0, 0] = 1e8, 1e-8
    everything = FilterSet(torch.arange(len(FilterIndex.of(target))))
    masked, same = (everything.swap(baseline, target, s) for s in (0.0, 1.0))
    for key, value in target.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)
        source = baseline if key.endswith("weight") else target
        assert torch.equal(masked.state_dict()[key], source.state_dict()[key])


def test_swap_keeps_modes_hooks_devices_and_requires_grad():
    baseline, target = pair(kinked)
    target.train()
    target[2].eval()
    target[0].weight.requires_grad_(False)
    edited = some(target).swap(baseline, nn.DataParallel(target))
    assert [m.training for m in edited.modules()] == [m.training for m in target.modules()]
    assert not edited[0].weight.requires_grad and edited[2].weight.requires_grad


def test_swapped_transposed_filters_are_the_located_ones():
    baseline, target = pair(lambda: nn.ConvTranspose2d(2, 3, 2))
    edited = FilterSet([5]).swap(baseline, target)
    changed = (edited.weight != target.weight).flatten(2).any(2).nonzero().tolist()
    assert changed == [[1, 2]]
    assert FilterIndex.of(target).locate(5) == ("weight", 1, 2)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        nn.utils.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.spectral_norm,
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_swap_of_parametrized_networks(wrap, training):
    baseline, target = pair(lambda: nn.Sequential(wrap(nn.Conv2d(2, 2, 3)), nn.Tanh()))
    for net in (baseline, target):
        net(torch.rand(1, 2, 5, 5, dtype=torch.float64))
        net.train(training)
    with untouched(baseline, target):
        edited = FilterSet([1]).swap(baseline, target)
    key = FilterIndex.of(target).layers[0]
    change = edited.state_dict()[key] - target.state_dict()[key]
    assert change.flatten(2).any(2).nonzero().tolist() == [[0, 1]]
    assert torch.equal(edited.state_dict()[key][0, 1], baseline.state_dict()[key][0, 1])


def test_swap_under_inference_mode_gives_a_usable_network():
    baseline, target = pair(kinked)
    with torch.inference_mode():
        edited = FilterSet([0]).swap(baseline, target)
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    edited(x).sum().backward()
    assert edited[0].weight.grad is not None


def test_the_other_order_is_refused():
    baseline, target = pair(kinked)
    result = faigfast.attribute(
        baseline, target, tuple(torch.rand(2, 1, 3, 6, 6, dtype=torch.float64)), steps=1
    )
    filters = result.top(None, 0.2)
    filters.swap(baseline, target)
    with untouched(baseline, target), pytest.raises(ValueError, match="other order"):
        filters.swap(target, baseline)
    third = randomise(copy.deepcopy(target), 9)
    for first, last in ((target, third), (third, baseline)):
        with pytest.raises(ValueError, match="other order"):
            filters.swap(first, last)


def test_another_architecture_is_refused():
    filters = some(kinked())
    wide = pair(lambda: kinked(width=5))
    with pytest.raises(ValueError, match=r"belong to .* with 24 filters.* 30"):
        filters.swap(*wide)
    with pytest.raises(ValueError, match=r"'0\.weight' is \[4, 3, 3, 3\].*\[5, 3, 3, 3\]"):
        filters.swap(kinked(), wide[1])
    with pytest.raises(ValueError, match="filter 24 does not exist in a network of 24"):
        FilterSet([24]).swap(*pair(kinked))


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), "1", None])
def test_strengths_that_are_refused(strength):
    with pytest.raises((TypeError, ValueError), match=r"strength is .*expected a finite number"):
        FilterSet([0]).swap(*pair(kinked), strength)


def test_a_strength_beyond_float64():
    with pytest.raises(ValueError, match=r"strength is .*expected a finite number"):
        FilterSet([0]).swap(*pair(kinked), 10**400)


@pytest.mark.parametrize("method", ["swap", "check_pair"])
def test_networks_without_values(method):
    net, meta = kinked(), kinked().to("meta")
    for role, networks in (("baseline", (meta, net)), ("target", (net, meta))):
        with pytest.raises(ValueError, match=f"{role} holds '0.weight' on the device meta"):
            getattr(FilterSet([0]), method)(*networks)


def test_masks_of_nothing():
    with pytest.raises(TypeError, match="index is a NoneType; expected a FilterIndex"):
        FilterSet([0]).masks(None)


@pytest.mark.parametrize("model", [None, "net.pth", {}])
def test_swap_takes_modules(model):
    net = kinked()
    with pytest.raises(TypeError, match=r"baseline is a .*expected a torch.nn.Module"):
        FilterSet([0]).swap(model, net)
    with pytest.raises(TypeError, match=r"target is a .*expected a torch.nn.Module"):
        FilterSet([0]).swap(net, model)


# --- sets


@pytest.mark.parametrize(
    "indices, total, words",
    [
        ([], None, r"empty|\[0\]"),
        ([0.5], None, "integers"),
        ([[1]], None, "integers"),
        ([True], None, "integers"),
        ([-1], None, "-1"),
        ([5], 5, "5"),
        ([1, 2, 1], None, "twice"),
    ],
)
def test_indices_that_are_refused(indices, total, words):
    with pytest.raises(ValueError, match=words):
        FilterSet(torch.tensor(indices), total)


@pytest.mark.parametrize("total", [2.5, float("nan"), True, "12", [12], 0, -1])
def test_totals_that_are_refused(tmp_path, total):
    (tmp_path / "one.txt").write_text("0\n")
    for make in (
        lambda: FilterSet([0], total),
        lambda: FilterSet.load(tmp_path / "one.txt", total),
    ):
        with pytest.raises((TypeError, ValueError), match=r"total is .*; expected the network's"):
            make()


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_tensors_that_are_no_list_of_integers():
    numbers = torch.tensor([0, 1])
    nested = torch.nested.nested_tensor([numbers[:1], numbers])
    for kind, indices in (("meta", numbers.to("meta")), ("sparse", numbers.to_sparse())):
        with pytest.raises(TypeError, match=f"indices are a {kind} tensor; expected a list"):
            FilterSet(indices)
    with pytest.raises(TypeError, match="indices are a nested tensor"):
        FilterSet(nested)
    with pytest.raises(ValueError, match=r"indices are \[1\] of torch.complex64"):
        FilterSet(torch.tensor([1j]))
    with pytest.raises(TypeError, match="indices are a list"):
        FilterSet([2**70])


def test_sets_are_int64_and_can_be_cut():
    filters = FilterSet(torch.tensor([7, 3, 5], dtype=torch.int32), 9, "abc", "d", "e")
    assert filters.indices.dtype == torch.int64 and len(filters) == 3
    part = filters[:2]
    assert part.indices.tolist() == [7, 3]
    assert (part.total, part.index, part.baseline, part.target) == (9, "abc", "d", "e")


# --- files


def test_a_file_brings_everything_back(tmp_path):
    filters = some(kinked(), baseline="ab12", target="cd34")
    filters.save(tmp_path / "blur.txt")
    again = FilterSet.load(tmp_path / "blur.txt")
    assert torch.equal(again.indices, filters.indices)
    for name in ("total", "index", "baseline", "target"):
        assert getattr(again, name) == getattr(filters, name)
    FilterSet([3, 1]).save(str(tmp_path / "bare.txt"))
    bare = FilterSet.load(str(tmp_path / "bare.txt"))
    assert bare.indices.tolist() == [3, 1] and bare.total is None and bare.index == ""


def test_numpy_reads_our_file_and_we_read_the_authors(tmp_path):
    filters = some(kinked(), baseline="ab12", target="cd34")
    filters.save(tmp_path / "ours.txt")
    assert np.loadtxt(tmp_path / "ours.txt", dtype=int).tolist() == filters.indices.tolist()
    header = (tmp_path / "ours.txt").read_text().splitlines()[0]
    assert header.startswith("#") and "filters=24" in header and filters.index in header
    order = np.array([5, 0, 13, 2])
    np.savetxt(tmp_path / "theirs.txt", order, delimiter=",", fmt="%d")
    assert FilterSet.load(tmp_path / "theirs.txt").indices.tolist() == order.tolist()
    (tmp_path / "windows.txt").write_bytes(b"4\r\n\r\n 2 \r\n")
    assert FilterSet.load(tmp_path / "windows.txt").indices.tolist() == [4, 2]


@pytest.mark.parametrize(
    "text, words",
    [
        ("1\n2\nthree\n", "line 3.*'three'"),
        ("1\n-2\n", "line 2.*'-2'"),
        ("1.0\n", r"line 1.*'1\.0'"),
        ("1\n\n1e3\n", "line 3.*'1e3'"),
        ("1,2,3\n", "line 1.*'1,2,3'"),
        ("1\n2\n1\n", "line 3.*line 1"),
        ("# faigfast filters=5\n4\n5\n", "line 3.*'5'.*0 to 5 - 1"),
        ("99999999999999999999999\n", "line 1"),
        ("# faigfast filters=many\n1\n", "line 1.*filters=many"),
        ("4\n# faigfast filters=4\n", "indices run from 4 to 4"),
        ("# faigfast filters=0\n", "no filter index|filters=0"),
        ("", "no filter index"),
        ("# faigfast filters=5\n", "no filter index"),
    ],
)
def test_lines_that_are_refused(tmp_path, text, words):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.txt.*({words})"):
        FilterSet.load(path)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        FilterSet.load(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="expected filter indices"):
        FilterSet.load(tmp_path)
    torch.save(smooth().state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net\.pth"):
        FilterSet.load(tmp_path / "net.pth")
    with pytest.raises(FileNotFoundError, match="aaa is not a file"):
        FilterSet.load(tmp_path / ("a" * 300))
    with pytest.raises(ValueError, match="/proc/self/mem cannot be read"):
        FilterSet.load("/proc/self/mem")
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(50 * 2**30)
    with pytest.raises(ValueError, match=r"sparse\.txt has 53687091200 bytes; expected"):
        FilterSet.load(tmp_path / "sparse.txt")
    for call in (FilterSet([0]).save, FilterSet.load):
        with pytest.raises(TypeError, match="path is 3; expected the name of a file"):
            call(3)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path, named in (("folder", "folder"), ("file/below.txt", "file")):
        with pytest.raises((OSError, ValueError), match=named):
            FilterSet([1]).save(tmp_path / path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_randomised_networks_are_reproducible():
    a, b = (randomise(kinked(), 5) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
