"""The dial: filters with both values in one file, applied to the target."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import faigfast
from faigfast import Dial, FilterIndex, FilterSet
from faigfast.io.tensor_file import load_tensors, save_tensors
from faigfast.zoo import SRResNet


def random_network(seed, build=lambda: SRResNet(width=4, blocks=1, scale=2)):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


@pytest.fixture(scope="module")
def pair():
    return random_network(0), random_network(1)


@pytest.fixture(scope="module")
def filters(pair):
    index = FilterIndex.of(pair[1])
    # All filters of the first layer, so that its biases move, and some of the others.
    first = torch.arange(index.offsets[1])
    return FilterSet(torch.cat([first, torch.arange(index.offsets[1] + 3, len(index), 7)]))


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("strength", [0, 0.25, 0.5, 1, 1.5, -0.5])
def test_a_dial_gives_what_swap_gives(pair, filters, biases, strength):
    dial = Dial.from_filters(filters, *pair, biases)
    assert len(dial) == len(filters) and dial.share == len(filters) / dial.total
    assert any(len(shape) == 1 for shape in dial.shapes.values()) == biases
    dialled = dial.apply(pair[1], strength)
    assert same(dialled, filters.swap(*pair, strength, biases=biases))
    assert dialled is not pair[1] and same(pair[1], random_network(1))


def test_ends_are_exact_to_the_bit(pair):
    every = FilterSet(torch.arange(len(FilterIndex.of(pair[1]))))
    dial = Dial.from_filters(every, *pair)
    assert same(dial.apply(pair[1], 1), pair[1])
    convolutions = [k for k in pair[0].state_dict() if k.endswith(("weight", "bias"))]
    off = dial.apply(pair[1], 0).state_dict()
    for key in set(convolutions) & dial.positions.keys():
        assert torch.equal(off[key], pair[0].state_dict()[key])


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv1d(4, 6, 3),
        lambda: nn.Conv3d(2, 3, 3),
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last),
    ],
)
def test_convolutions_of_every_kind(build):
    nets = random_network(0, build), random_network(1, build)
    some = FilterSet(torch.tensor([0, 1, 4, 5]))
    dial = Dial.from_filters(some, *nets)
    assert same(dial.apply(nets[1], 0.25), some.swap(*nets, 0.25, biases=True))


def test_a_file_holds_the_dial(pair, filters, tmp_path):
    dial = Dial.from_filters(filters, *pair, name="noise")
    dial.save(tmp_path / "dial.safetensors")
    read = Dial.load(tmp_path / "dial.safetensors")
    assert read.name == "noise" and len(read) == len(dial) and repr(read) == repr(dial)
    for strength in (0, 0.5, 1.25):
        assert same(read.apply(pair[1], strength), dial.apply(pair[1], strength))
    content = load_file(tmp_path / "dial.safetensors")
    values = sum(v.numel() for k, v in content.items() if not k.startswith("positions"))
    assert values == 2 * sum(v.numel() for v in dial.target.values())


def test_values_of_half_precision_take_half_the_bytes(pair, filters, tmp_path):
    halves = [copy.deepcopy(network).half().float() for network in pair]
    filters = FilterSet(filters.indices)
    sizes = []
    for number, nets in enumerate((pair, halves)):
        dial = Dial.from_filters(filters, *nets)
        dial.save(tmp_path / str(number))
        again = Dial.load(tmp_path / str(number))
        for key, value in dial.baseline.items():
            assert again.baseline[key].dtype == torch.float32
            assert torch.equal(again.baseline[key], value)
        again.apply(nets[1], 0.5)
        sizes.append(sum(v.nbytes for v in load_file(tmp_path / str(number)).values()))
    assert sizes[1] < 0.6 * sizes[0]


def test_two_dials_work_one_after_the_other(pair):
    F = len(FilterIndex.of(pair[1]))
    one, other = FilterSet(torch.arange(0, F, 9)), FilterSet(torch.arange(1, F, 9))
    a, b = (Dial.from_filters(s, *pair) for s in (one, other))
    expected = other.swap(pair[0], one.swap(*pair, 0.5, biases=True), 0, biases=True)
    assert same(b.apply(a.apply(pair[1], 0.5), 0), expected)
    assert same(a.apply(b.apply(pair[1], 0), 0.5), expected)
    # Dials that share filters agree while the first one is at 1.
    shared = Dial.from_filters(FilterSet(torch.arange(0, F, 3)), *pair)
    assert same(shared.apply(a.apply(pair[1], 1), 0), shared.apply(pair[1], 0))
    with pytest.raises(ValueError, match="other values than the dial's target"):
        shared.apply(a.apply(pair[1], 0), 0)


def test_modes_types_and_wrappers(pair, filters):
    dial = Dial.from_filters(filters, *pair)
    training = copy.deepcopy(pair[1]).train()
    assert dial.apply(training, 0).training
    half = dial.apply(copy.deepcopy(pair[1]).to(torch.bfloat16), 0)
    assert next(half.parameters()).dtype == torch.bfloat16
    assert same(dial.apply(nn.DataParallel(pair[1]), 0), dial.apply(pair[1], 0))
    with torch.inference_mode():
        inside = dial.apply(pair[1], 0)
    assert same(inside, dial.apply(pair[1], 0))


def test_other_networks_are_refused(pair, filters):
    dial = Dial.from_filters(filters, *pair)
    with pytest.raises(ValueError, match="other values than the dial's target in"):
        dial.apply(pair[0], 0)
    with pytest.raises(ValueError, match=r"model has \d+ filters and the fingerprint"):
        dial.apply(SRResNet(width=8, blocks=1, scale=2), 0)
    with pytest.raises(ValueError, match="model has 0 filters"):
        dial.apply(nn.Linear(2, 2), 0)
    with pytest.raises(TypeError, match="model is a str"):
        dial.apply("target.pth", 0)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 10**400])
def test_strengths_that_are_not_finite(pair, filters, strength):
    with pytest.raises(ValueError, match=r"strength is .*; expected a finite number"):
        Dial.from_filters(filters, *pair).apply(pair[1], strength)


def test_strengths_of_other_kinds_and_too_large(pair, filters):
    dial = Dial.from_filters(filters, *pair)
    for strength in ("0.5", None, True, torch.tensor(1.0)):
        with pytest.raises(TypeError, match="strength is"):
            dial.apply(pair[1], strength)
    with pytest.raises(ValueError, match="at the strength 1e\\+39 are not finite"):
        dial.apply(pair[1], 1e39)


def test_arguments_of_from_filters(pair, filters):
    with pytest.raises(TypeError, match="filters is a list"):
        Dial.from_filters([1, 2], *pair)
    with pytest.raises(TypeError, match="biases is 1"):
        Dial.from_filters(filters, *pair, 1)
    with pytest.raises(ValueError, match="name is 'a/b'"):
        Dial.from_filters(filters, *pair, name="a/b")
    with pytest.raises(ValueError, match="the networks differ"):
        Dial.from_filters(filters, pair[0], SRResNet(width=8, blocks=1, scale=2))
    broken = copy.deepcopy(pair[0])
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"baseline of .* not finite"):
        Dial.from_filters(filters, broken, pair[1])


def test_files_of_other_kinds(pair, filters, tmp_path):
    with pytest.raises(FileNotFoundError):
        Dial.load(tmp_path / "none.safetensors")
    faigfast.save_model(pair[1], tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="is no dial"):
        Dial.load(tmp_path / "net.safetensors")
    path = tmp_path / "dial.safetensors"
    Dial.from_filters(filters, *pair).save(path)
    octets = bytearray(path.read_bytes())
    octets[-5] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(octets)
    with pytest.raises(ValueError, match="is damaged"):
        Dial.load(tmp_path / "damaged.safetensors")
    (tmp_path / "short.safetensors").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated, damaged"):
        Dial.load(tmp_path / "short.safetensors")


def _without(key):
    return lambda tensors, metadata: metadata.pop(key)


def _beyond(tensors, metadata):
    key = next(k for k in tensors if k.startswith("positions"))
    tensors[key][-1] = 10**6


def _foreign(tensors, metadata):
    tensors["more/a"] = torch.zeros(1)


def _other_keys(tensors, metadata):
    tensors.pop(next(k for k in tensors if k.startswith("target")))


def _integers(tensors, metadata):
    key = next(k for k in tensors if k.startswith("target"))
    tensors[key] = tensors[key].int()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("shapes"), "lacks entries of a dial"),
        (_without("total"), "lacks entries of a dial"),
        (lambda t, m: m.update(shapes=[3]), "lacks entries of a dial"),
        (_beyond, "no ascending places"),
        (_foreign, "holds 'more/a'"),
        (_other_keys, "target has the keys"),
        (_integers, "not finite numbers"),
    ],
)
def test_files_with_another_content(pair, filters, tmp_path, change, message):
    Dial.from_filters(filters, *pair).save(tmp_path / "dial.safetensors")
    content = load_tensors(tmp_path / "dial.safetensors")
    change(*content)
    save_tensors(tmp_path / "dial.safetensors", *content)
    with pytest.raises(ValueError, match=message):
        Dial.load(tmp_path / "dial.safetensors")


def test_a_dial_needs_torch_and_the_dependencies_alone(pair, filters, tmp_path):
    Dial.from_filters(filters, *pair).save(tmp_path / "dial.safetensors")
    faigfast.save_model(pair[1], tmp_path / "net.pth")
    code = (
        "import json, sys, torch\n"
        "for name in ('pandas', 'scipy', 'matplotlib', 'PIL', 'skimage', 'jsonargparse'):\n"
        "    sys.modules[name] = None\n"
        "from faigfast import Dial\n"
        "from faigfast.zoo import SRResNet\n"
        "net = SRResNet(width=4, blocks=1, scale=2)\n"
        "net.load_state_dict(torch.load(sys.argv[1], weights_only=True))\n"
        "dial = Dial.load(sys.argv[2])\n"
        "print(json.dumps([len(dial), len(list(dial.apply(net, 0.5).parameters()))]))\n"
    )
    files = [str(tmp_path / "net.pth"), str(tmp_path / "dial.safetensors")]
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [len(filters), len(list(pair[1].parameters()))]
