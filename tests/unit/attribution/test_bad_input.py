"""Refused networks and images: type and words of the error, and no side effects."""

import copy

import numpy as np
import pytest
import torch
from cases.networks import images, kinked, pair, refused, untouched
from torch import nn

from faigfast import attribute

# --- networks


def test_shapes_that_differ():
    message = refused(ValueError, "0.weight", pair()[0], pair(lambda: kinked(width=5))[1])
    assert "[4, 3, 3, 3]" in message and "[5, 3, 3, 3]" in message


@pytest.mark.parametrize("swap", [False, True])
def test_architectures_that_differ(swap):
    a, b = kinked().double(), nn.Sequential(*kinked(), nn.Conv2d(3, 3, 1)).double()
    message = refused(ValueError, r"'3\.weight' \[3, 3, 1, 1\]", *((b, a) if swap else (a, b)))
    assert "in the baseline" in message and "in the target" in message


def test_kinds_of_layers_that_differ():
    a = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()).double()
    b = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid()).double()
    refused(ValueError, "model_a has the loss", a, b)


def test_identical_weights():
    net = kinked().double()
    words = "identical weights: nothing to attribute"
    refused(ValueError, words, net, copy.deepcopy(net))
    refused(ValueError, words, net, net)


@pytest.mark.parametrize("model", [None, "baseline.pth", {"weight": 1}, nn.Conv2d, 3])
def test_what_is_no_module(model):
    net = kinked().double()
    refused(TypeError, r"model_a is a .*expected a torch\.nn\.Module", model, net)
    refused(TypeError, r"model_b is a .*expected a torch\.nn\.Module", net, model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_scripted_modules():
    nets = [torch.jit.trace(net, images()[0]) for net in pair()]
    refused(TypeError, "model_a is a scripted module", *nets)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["baseline", "target"])
@pytest.mark.parametrize("tensor", ["0.weight", "0.bias", "1.running_mean"])
def test_weights_that_are_not_finite(value, which, tensor):
    nets = pair(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    nets[which == "target"].state_dict()[tensor].view(-1)[1] = value
    refused(ValueError, f"'{tensor}' of the {which} .*not finite", *nets)


def test_networks_of_different_dtypes():
    a, b = pair()
    message = refused(ValueError, "'0.weight'", a.float(), b)
    assert "float32" in message and "float64" in message


def test_networks_on_different_devices():
    a, b = pair()
    message = refused(ValueError, "'0.weight'", copy.deepcopy(a).to("meta"), b)
    assert "meta" in message and "cpu" in message


def test_networks_without_values():
    a, b = (net.to("meta") for net in pair())
    refused(ValueError, "meta", a, b)


def test_networks_without_parameters_or_convolutions():
    refused(ValueError, "no parameters", nn.ReLU(), nn.ReLU())
    refused(ValueError, "no convolution", *pair(lambda: nn.Linear(5, 5)), batch=images(size=(6, 5)))


def test_complex_networks_and_other_dtypes():
    a, b = pair(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()))
    for net in (a, b):
        net.register_buffer("phase", torch.zeros(1, dtype=torch.complex64))
    refused(ValueError, "'phase' is complex; expected real", a, b)


def test_lazy_networks():
    lazy = nn.LazyConv2d(3, 1)
    with pytest.raises((ValueError, TypeError)):
        attribute(lazy, lazy, images())


# --- images


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["tuple", "mapping"])
def test_images_that_are_not_finite(value, form):
    nets = pair()
    for part, name in ((0, "x"), (1, "gt")):
        batch = images()
        batch[part][1, 2, 0, 0] = value
        if form == "mapping":
            name = f"{name} of 'blur'"
            batch = {"lq": {"noise": images()[0], "blur": batch[0]}, "gt": batch[1]}
            if part == 1:
                name = "gt of 'noise'"
        refused(ValueError, f"^{name} holds values that are not finite", *nets, batch=batch)


def test_gt_that_does_not_fit_the_output():
    x, gt = images()
    for other in (gt[:, :2], gt[..., :-1], gt[:, :, 0], torch.cat([gt, gt], 3)):
        message = refused(ValueError, "gt does not fit", *pair(), batch=(x, other))
        assert str(list(other[:1].shape)) in message and "[1, 3, 6, 5]" in message


def test_gt_that_would_broadcast():
    x, gt = images()
    refused(ValueError, "gt does not fit", *pair(), batch=(x, gt[:, :1]))
    refused(ValueError, "gt does not fit", *pair(), batch=(x, gt[:, :, :1, :1]))


def test_numbers_of_images_that_differ():
    x, gt = images(3)
    message = refused(ValueError, "numbers of images differ", *pair(), batch=(x, gt[:2]))
    assert "3" in message and "2" in message
    batch = {"lq": {"a": x, "b": x[:1]}, "gt": gt}
    refused(ValueError, "numbers of images differ.*'b': \\(1, 3\\)", *pair(), batch=batch)


def test_images_of_another_device():
    x, gt = images()
    for batch, name in (((x.to("meta"), gt), "x"), ((x, gt.to("meta")), "gt")):
        refused(ValueError, f"^{name} is on meta; expected cpu", *pair(), batch=batch)


def test_images_of_another_dtype():
    x, gt = images()
    for batch, name in (((x.float(), gt), "x"), ((x, gt.half()), "gt")):
        refused(
            ValueError, rf"^{name} is of torch\..*; expected torch\.float64", *pair(), batch=batch
        )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_images(dtype):
    x, gt = images()
    refused(TypeError, r"^x is of torch\..*expected floating", *pair(), batch=(x.to(dtype), gt))
    refused(TypeError, r"^gt is of torch\..*expected floating", *pair(), batch=(x, gt.to(dtype)))


def test_complex_images():
    x, gt = images()
    refused(TypeError, "^x is of torch.complex128", *pair(), batch=(x.to(torch.complex128), gt))


@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 3, 6), (2, 3, 6, 5, 4), (3,), ()])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_ranks_the_network_does_not_take(shape, layer):
    x, gt = (torch.rand(shape).double() for _ in range(2))
    nets = pair(lambda: nn.Sequential(layer(3, 3, 1), nn.Tanh(), nn.Conv2d(3, 3, 1)))
    refused(ValueError, r"\bx\b", *nets, batch=(x, gt))


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d])
def test_ranks_of_other_networks(layer):
    nets = pair(lambda: nn.Sequential(layer(1, 1, 1)))
    refused(ValueError, "x|rank|images", *nets, batch=images(2, 1))
    # One axis is missing, so torch would read the images as channels of one image.
    x = torch.rand(1, *(4,) * (1 if "1d" in layer.__name__ else 3)).double()
    refused(ValueError, "rank|x", *nets, batch=(x, x.clone()))


def test_channels_the_network_does_not_take():
    refused(ValueError, r"do not take x \[1, 2, 6, 5\]", *pair(), batch=images(2, 2))


def test_images_too_small_for_the_network():
    nets = pair(lambda: nn.Conv2d(3, 3, 5))
    refused(ValueError, r"do not take x \[1, 3, 2, 2\]", *nets, batch=images(1, 3, (2, 2)))


@pytest.mark.parametrize("shape", [(0, 3, 6, 5), (2, 0, 6, 5), (2, 3, 0, 5)])
def test_empty_batches(shape):
    empty = torch.empty(shape).double()
    refused(ValueError, "^x is empty: .*expected at least one image", *pair(), batch=(empty, empty))
    refused(ValueError, "^gt is empty", *pair(), batch=(images()[0], empty))


@pytest.mark.parametrize("batch", [[], (), iter([]), {"lq": {}, "gt": torch.rand(1)}])
def test_no_batches(batch):
    refused(ValueError, "empty", *pair(), batch=batch)


@pytest.mark.parametrize(
    "batch",
    [
        3,
        "images",
        b"images",
        torch.rand(2, 3, 6, 5),
        object(),
        [1, 2],
        ["a", "b"],
        (torch.rand(1, 3, 4, 4),),
        (torch.rand(1, 3, 4, 4),) * 3,
        [torch.rand(1, 3, 4, 4)] * 3,
        (None, None),
        (np.zeros((1, 3, 4, 4)), np.zeros((1, 3, 4, 4))),
        (torch.rand(1, 3, 4, 4), np.zeros((1, 3, 4, 4))),
        (torch.rand(1, 3, 4, 4), None),
        {"lq": np.zeros((1, 3, 4, 4)), "gt": torch.rand(1, 3, 4, 4)},
        {"lq": {1: torch.rand(1, 3, 4, 4)}, "gt": torch.rand(1, 3, 4, 4)},
        [((torch.rand(1, 3, 4, 4),) * 3)],
        [None],
    ],
)
def test_batches_of_an_unknown_form(batch):
    nets = (net.float() for net in pair())
    refused(TypeError, r"expected|named by strings", *nets, batch=batch)


def test_none_is_no_batch():
    with pytest.raises(TypeError, match=r"batch is a NoneType; expected \(x, gt\)"):
        attribute(*pair(), None)


@pytest.mark.parametrize("missing", ["lq", "gt"])
def test_mappings_without_lq_or_gt(missing):
    batch = dict(zip(("lq", "gt"), images(), strict=True))
    del batch[missing]
    refused(ValueError, f"batch has the keys .*'{missing}' is missing", *pair(), batch=batch)
    refused(ValueError, f"'{missing}' is missing", *pair(), batch=[batch])


def test_a_degradation_without_its_gt():
    x, gt = images()
    batch = {"lq": {"blur": x, "noise": x}, "gt": {"blur": gt}}
    refused(ValueError, r"batch\['gt'\] has the keys \['blur'\]; 'noise' is", *pair(), batch=batch)


def test_batches_of_different_degradations():
    x, gt = images()
    batches = [{"lq": {"blur": x}, "gt": gt}, {"lq": {"noise": x}, "gt": gt}]
    refused(ValueError, r"\['noise'\] after .*\['blur'\]", *pair(), batch=batches)
    refused(ValueError, "expected the same in all", *pair(), batch=[*batches[:1], (x, gt)])


def test_an_error_late_in_an_iterable():
    def several():
        yield images()
        x, gt = images()
        x[0, 0, 0, 0] = float("nan")
        yield x, gt

    refused(ValueError, "x holds values that are not finite", *pair(), batch=several())


def test_an_error_of_the_iterable_itself_passes_through():
    def broken():
        yield images()
        raise KeyError("photograph 7")

    nets = pair()
    nets[0].train()
    with untouched(*nets), pytest.raises(KeyError, match="photograph 7"):
        attribute(*nets, broken())


def test_the_place_of_a_loss_that_overflows_is_named():
    x, gt = images(3)
    x[2] *= 1e200
    batch = {"lq": {"blur": images()[0].repeat(2, 1, 1, 1)[:3], "noise": x}, "gt": gt}
    refused(ValueError, "'noise', image 2: .*loss is inf", *pair(kinked), batch=batch)


def test_losses_that_overflow_in_16_bit():
    nets = pair(lambda: nn.Conv2d(3, 3, 1), torch.float32)
    x, gt = images(dtype=torch.float32)
    refused(ValueError, "finite", *nets, batch=(1e4 * x, gt), precision="fp16")


@pytest.mark.parametrize("taken, given", [(1, 3), (3, 1)])
def test_a_wrong_number_of_channels_is_named_in_our_words(taken, given):
    nets = [torch.nn.Conv2d(taken, taken, 3, padding=1) for _ in range(2)]
    batch = (torch.rand(1, given, 8, 8), torch.rand(1, given, 8, 8))
    words = rf"images have {given} channels? and the networks take {taken}; expected x of \[N, "
    for pad in (0, 2):
        with pytest.raises(ValueError, match=words):
            attribute(*nets, batch, steps=2, pad=pad)


def test_channels_inside_a_network_are_no_matter_of_the_images():
    def broken():
        first, second = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(5, 3, 3, padding=1)
        return torch.nn.Sequential(first, second)

    with pytest.raises(ValueError, match=r"do not take x .* to have 5 channels, but got 4"):
        attribute(broken(), broken(), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)), steps=2)
