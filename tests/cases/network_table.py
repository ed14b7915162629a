"""The hard networks and stacks of layers by name, and pairs that lie near each other."""

import torch
from cases.hard_networks import (
    Buffers,
    ByShape,
    ByValue,
    Detached,
    Fp32Island,
    InPlace,
    InPlaceAfterNothing,
    Keeps,
    MixesBatch,
    Nested,
    StraightThrough,
    Tied,
    Unbatched,
)
from cases.hard_operations import (
    ComplexFilter,
    DynamicFilter,
    Functional,
    JoinedImage,
    NormsTurned,
    Reshapes,
    Residuals,
    Resizes,
    Selects,
    SequenceFirst,
    Squeezes,
    Tables,
    WeightOfWeights,
    Windows,
)
from torch import nn
from torch.nn.utils import parametrizations


def conv(*args, **options):
    return lambda: nn.Conv2d(*args, **options)


def stack(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def norms(layer):
    return stack(conv(3, 4, 3, padding=1), layer, nn.Tanh, conv(4, 3, 1))


# Name → (class or function that makes it, spatial rank).
# fmt: off
NETWORKS = {
    "control flow on shapes": (ByShape, 2),
    "control flow on values": (ByValue, 2),
    "in place": (InPlace, 2),
    "in place after nothing": (InPlaceAfterNothing, 2),
    "nested": (Nested, 2),
    "buffers": (Buffers, 2),
    "functional": (Functional, 2),
    "tied": (Tied, 2),
    "group norm of a permuted tensor": (NormsTurned, 2),
    "weights of weights": (WeightOfWeights, 2),
    "sequence first": (SequenceFirst, 2),
    "reshapes": (Reshapes, 2),
    "tables": (Tables, 2),
    "windows": (Windows, 2),
    "dynamic filter": (DynamicFilter, 2),
    "unbatched": (Unbatched, 2),
    "selects": (Selects, 2),
    "detached": (Detached, 2),
    "squeezes": (Squeezes, 2),
    "resizes": (Resizes, 2),
    "own gradient": (StraightThrough, 2),
    "mixes batch": (MixesBatch, 2),
    "keeps": (Keeps, 2),
    "another precision": (Fp32Island, 2),
    "residuals": (Residuals, 2),
    "joined image": (JoinedImage, 2),
    "complex filter": (ComplexFilter, 2),
    "dropout": (stack(conv(3, 4, 1), nn.Dropout2d, nn.Tanh, nn.AlphaDropout, nn.RReLU,
                      conv(4, 3, 1), lambda: nn.Dropout(inplace=True)), 2),
    "weight norm": (stack(lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
                          nn.Tanh, conv(4, 3, 1)), 2),
    "weight norm by hook": (stack(lambda: nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
                                  nn.Tanh, conv(4, 3, 1)), 2),
    "spectral norm": (stack(
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.Tanh,
        conv(4, 3, 1)), 2),
    "spectral norm by hook": (stack(
        lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.Tanh,
        conv(4, 3, 1)), 2),
    "circular": (stack(conv(3, 4, 3, padding=1, padding_mode="circular"), nn.SiLU,
                       conv(4, 3, 1)), 2),
    "reflect": (stack(conv(3, 4, 3, padding=(1, 2), padding_mode="reflect"), nn.GELU,
                      conv(4, 3, (1, 3))), 2),
    "replicate": (stack(conv(3, 4, (3, 5), padding="same", padding_mode="replicate"), nn.Tanh,
                        conv(4, 3, 1)), 2),
    "same, even": (stack(conv(3, 4, (2, 4), padding="same"), nn.Sigmoid,
                         conv(4, 3, (3, 2), padding="same", dilation=(1, 3))), 2),
    "grouped": (stack(conv(3, 6, 3, padding=1, groups=3), nn.LeakyReLU,
                      conv(6, 3, 1, groups=3)), 2),
    "dilated": (stack(conv(3, 4, 3, padding=(2, 3), dilation=(2, 3), bias=False), nn.GELU,
                      conv(4, 3, 1)), 2),
    "strided": (stack(conv(3, 4, 3, padding=1, stride=(2, 1)), nn.ReLU,
                      lambda: nn.ConvTranspose2d(4, 3, 3, (2, 1), 1)), 2),
    "transposed": (stack(
        lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1, groups=1), nn.Tanh,
        lambda: nn.ConvTranspose2d(4, 4, 2, dilation=2, groups=2), nn.Tanh,
        conv(4, 3, 4, stride=2, padding=1)), 2),
    "batch norm": (norms(lambda: nn.BatchNorm2d(4)), 2),
    "batch norm without weights": (norms(lambda: nn.BatchNorm2d(4, affine=False)), 2),
    "batch norm of the image": (norms(lambda: nn.BatchNorm2d(4, track_running_stats=False)), 2),
    "group norm": (norms(lambda: nn.GroupNorm(2, 4)), 2),
    "layer norm": (norms(lambda: nn.LayerNorm((5, 4))), 2),
    "instance norm": (norms(lambda: nn.InstanceNorm2d(4, affine=True)), 2),
    "instance norm that tracks": (norms(
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), 2),
    "one dimension": (stack(
        lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.BatchNorm1d(4), nn.PReLU,
        lambda: nn.ConvTranspose1d(4, 4, 3, padding=1), lambda: nn.GroupNorm(1, 4),
        lambda: nn.Conv1d(4, 3, 1, padding="same")), 1),
    "three dimensions": (stack(
        lambda: nn.Conv3d(3, 4, (3, 1, 3), padding=(1, 0, 1)), lambda: nn.BatchNorm3d(4),
        lambda: nn.PReLU(4), lambda: nn.ConvTranspose3d(4, 4, 3, padding=1),
        lambda: nn.InstanceNorm3d(4, affine=True), lambda: nn.Conv3d(4, 3, 1)), 3),
}
# fmt: on
SPATIAL = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}
# Networks without a correct graph, which run point by point, and the reason.
SLOW = {"control flow on values": "data-dependent", "own gradient": "OwnGradient may have"}
# Networks with an operation that has no rule and cannot be mapped.
LOOPED = {
    "sequence first": "aten.gru.input",
    "weights of weights": "aten.conv2d.default",
    "dynamic filter": "aten.conv2d.default",
    "unbatched": "aten.conv2d.default",
    "weight norm": "aten.conv2d.default",
    "weight norm by hook": "aten.conv2d.default",
    "spectral norm": "aten.conv2d.default",
    "spectral norm by hook": "aten.conv2d.default",
}


def near(make, dtype=torch.float64):
    """A target near the baseline. On a line between two random nets, a norm may vanish."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        baseline, target = make().to(dtype), make().to(dtype)
        baseline(torch.rand(1, 3, 6, 5, dtype=dtype))
    target.load_state_dict(baseline.eval().state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in target.state_dict().values():
            value.add_(0.02 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return baseline, target.eval()
