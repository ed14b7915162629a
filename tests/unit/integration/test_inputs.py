"""Batches with inputs beside the image: noise levels, maps and kernels."""

import pytest
import torch
from cases.networks import images, pair
from torch import nn
from torch.nn import functional as F

from faigfast import Attributor, attribute
from faigfast.models.packing import Packing


class Conditioned(nn.Module):
    """Takes a noise level, a map in the image's size, and by name a kernel and a mode."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(5, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x, level, strength, *, kernel=None, places=None, mode="soft"):
        level = level.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        y = torch.tanh(self.head(torch.cat([x, level, strength], 1)))
        if kernel is not None:
            k = kernel.shape[-1] // 2
            y = F.conv2d(
                F.pad(y, [k] * 4, mode="reflect"), kernel[:, None].expand(4, 1, -1, -1), groups=4
            )
        if places is not None:
            y = y * (1 + 0.1 * places.float().view(-1, 1, 1, 1))
        return self.tail(y) * (0.5 if mode == "soft" else 1)


class WithConstants(nn.Module):
    """The same network with the inputs of one image inside."""

    def __init__(self, network, args, kwargs):
        super().__init__()
        self.network, self.given = network, (args, kwargs)

    def forward(self, x):
        args, kwargs = self.given
        return self.network(x, *args, **kwargs)


N = 3


@pytest.fixture
def batch():
    x, gt = images(N)
    generator = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return x, gt, rand(N), rand(N, 1, 6, 5), rand(N, 3, 3) / 9


def expected(nets, x, gt, args, kwargs):
    """Scores of every image by networks that hold its inputs."""
    rows = []
    for n in range(len(x)):
        row = lambda v: v[n : n + 1] if torch.is_tensor(v) else v  # noqa: B023, E731
        given = [row(v) for v in args], {key: row(v) for key, v in kwargs.items()}
        wrapped = [WithConstants(net, *given) for net in nets]
        part = x[n : n + 1], gt[n : n + 1]
        rows.append(attribute(*wrapped, part, steps=3, backend="reference").scores())
    return torch.cat(rows)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_inputs_by_position_and_by_name(backend, batch):
    x, gt, level, strength, kernel = batch
    nets = pair(Conditioned)
    options = {"steps": 3, "backend": backend, "precision": "fp64"}
    for args, kwargs in [
        ((level, strength), {}),
        ((), {"level": level, "strength": strength, "kernel": kernel, "mode": "hard"}),
        ((), {"level": level, "strength": strength, "places": torch.tensor([1, 5, 7])}),
    ]:
        given = {"lq": x, "gt": gt, "inputs": args or kwargs}
        result = attribute(*nets, given, **options)
        scores = expected(nets, x, gt, args, kwargs)
        torch.testing.assert_close(result.scores(), scores, rtol=1e-10, atol=1e-14)
        assert not [note for note in result.notes if "point by point" in note]


def test_inputs_by_degradation_and_in_several_batches(batch):
    x, gt, level, strength, _ = batch
    nets = pair(Conditioned)
    inputs = {"blur": (level, strength), "noise": (level / 2, strength)}
    lq = {"blur": x, "noise": x + 0.1}
    one = attribute(*nets, {"lq": lq, "gt": gt, "inputs": inputs}, steps=3, backend="torch")
    for name, images_of in lq.items():
        scores = expected(nets, images_of, gt, inputs[name], {})
        torch.testing.assert_close(one.scores(name), scores, rtol=1e-10, atol=1e-14)
    parts = [
        {"lq": x[i : i + 1], "gt": gt[i : i + 1], "inputs": (level[i : i + 1], strength[i : i + 1])}
        for i in range(N)
    ]
    result = Attributor(*nets, steps=3, backend="torch")(parts)
    torch.testing.assert_close(result.scores(), one.scores("blur"), rtol=1e-12, atol=1e-16)


def test_images_of_several_sizes_and_padding(batch):
    x, gt, level, strength, _ = batch
    nets, attributor = pair(Conditioned), None
    attributor = Attributor(*nets, steps=3, backend="torch")
    for size in ((5, 6), (6, 5), (10, 3)):
        part = x.reshape(N, 3, *size), gt.reshape(N, 3, *size)
        args = level, strength.reshape(N, 1, *size)
        result = attributor({"lq": part[0], "gt": part[1], "inputs": args})
        torch.testing.assert_close(
            result.scores(), expected(nets, *part, args, {}), rtol=1e-10, atol=1e-14
        )
    wide = F.pad(strength, [1] * 4)
    inputs = {"level": level, "strength": wide}
    result = attribute(*nets, {"lq": x, "gt": gt, "inputs": inputs}, steps=3, pad=1)
    assert result.scores().isfinite().all()


@pytest.mark.parametrize(
    "inputs, kind, words",
    [
        (5, TypeError, "inputs is a int; expected a tuple"),
        (({},), TypeError, "a tensor of inputs is a dict"),
        ({1: 2}, TypeError, r"inputs has the keys \[1\]"),
        ((torch.ones(2),), ValueError, r"is \[2\]; expected one row for each of 3 images"),
        ((torch.ones(()),), ValueError, r"expected one row"),
        ((torch.full((3,), float("nan")),), ValueError, "not finite"),
        ((torch.ones(3, dtype=torch.complex64),), ValueError, "is complex"),
        ((torch.tensor([1, 2, 2**60 + 1]), 0), ValueError, "hold integers that torch.float64"),
        ((1.0,), ValueError, "the networks do not take x"),
    ],
)
def test_inputs_that_are_refused(inputs, kind, words, batch):
    x, gt, *_ = batch
    with pytest.raises(kind, match=words):
        attribute(*pair(Conditioned), {"lq": x, "gt": gt, "inputs": inputs}, steps=2)


def test_inputs_that_change_their_form_are_refused(batch):
    x, gt, level, strength, _ = batch
    parts = [
        {"lq": x, "gt": gt, "inputs": {"level": level, "strength": strength, "mode": mode}}
        for mode in ("soft", "hard")
    ]
    with pytest.raises(ValueError, match=r"expected one form for each shape of x"):
        attribute(*pair(Conditioned), parts, steps=2)


def test_a_packing_gives_back_what_it_took():
    x = torch.rand(2, 3, 4, 4)
    rows = [[torch.rand(1, 5, 7), torch.tensor([[n, 3]])] for n in range(2)]
    layout = ((None, (torch.Size([5, 7]), torch.float32)), ("n", (torch.Size([2]), torch.int64)))
    packing = Packing(3, layout)
    packed = packing.pack(x, rows)
    assert packed.shape == (2, 6, 4, 4)
    for n in range(2):
        image, (first,), named = packing.unpack(packed[n : n + 1])
        assert torch.equal(image[0], x[n]) and torch.equal(first, rows[n][0])
        assert torch.equal(named["n"], rows[n][1])


def test_an_input_that_the_batch_lacks_is_named_with_the_remedy():
    nets = pair(Conditioned)
    x, gt = images(1)
    with pytest.raises(ValueError, match=r"level.*expected a batch with 'inputs' for it"):
        attribute(*nets, (x, gt), steps=1)
