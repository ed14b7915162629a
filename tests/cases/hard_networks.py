"""Networks that are hard to run for many images and points of the line at once."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


def conv(*args, **options):
    return lambda: nn.Conv2d(*args, **options)


def stack(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


class Body(nn.Module):
    """Two 3×3 convolutions, head and tail, for networks that do something between."""

    def __init__(self, width=4):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return self.tail(self.between(torch.tanh(self.head(x))))


class ByShape(Body):
    """Control flow on shapes, and a loop over rows."""

    def between(self, y):
        if y.shape[-1] % 2:
            y = F.pad(y, (0, 1, 0, 0), mode="reflect")[..., :-1] * 1.5
        rows = [y[:, :, i] * (i + 1) / y.shape[2] for i in range(y.shape[2])]
        return torch.stack(rows, 2)


class ByValue(Body):
    """Control flow on values."""

    def between(self, y):
        return y * 2 if y.mean() > 0 else -y


class InPlace(Body):
    """Activations and sums in place, also through views and slices."""

    def __init__(self):
        super().__init__()
        self.more = nn.Conv2d(4, 4, 1)

    def between(self, y):
        y = F.leaky_relu_(self.more(y), 0.1)
        y = y + 0.1
        y[:, 1:3].add_(0.5)
        y[:, 0] = y[:, 2].clone() + 1
        y.transpose(2, 3)[:, :, 1:].sub_(0.25)
        low, high = y[:, :2], y[:, 2:]
        low += high
        return y.view(len(y), -1).add_(low.mean()).view_as(y)


class InPlaceAfterNothing(Body):
    """Writes on what dropout in eval mode passes through, and reads the original again."""

    def between(self, y):
        y = y + 0.1
        kept = F.dropout(y, 0.5, training=False)
        kept.mul_(0.5)
        return y + kept


class Nested(nn.Module):
    """Lists and dicts of modules and parameters, in an order of their own, some used twice."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])
        self.ways = nn.ModuleDict({"a": nn.PReLU(3), "b": nn.Sequential(nn.Conv2d(3, 3, 1))})
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(3)])
        self.shifts = nn.ParameterDict({"c": nn.Parameter(torch.ones(3, 1, 1))})

    def forward(self, x):
        for gain, block in zip(reversed(self.gains), self.blocks, strict=True):
            x = x + gain * self.ways["a"](block(x)) + self.shifts["c"]
            x = self.ways["b"](x)
        return x


class Outputs(Body):
    """Several outputs, one of them a constant, one the input."""

    def forward(self, x):
        y = torch.tanh(self.head(x))
        return {"image": self.tail(y), "parts": [y.mean((1, 2, 3)), x], "level": 3, "none": None}


def outputs_loss(output, gt):
    first, x = output["parts"]
    image = (output["image"] - gt * x).square().flatten(1).sum(1)
    return image + output["level"] * first.square()


class Buffers(Body):
    """Floating buffers on the line, one outside the state dict, and a plain tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("window", torch.linspace(0.5, 1, 4).view(4, 1, 1), persistent=False)
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.gain = torch.tensor(1.25)
        self.tables = {"shift": torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1)}

    def forward(self, x):
        return super().forward(x - self.mean)

    def between(self, y):
        return y[:, self.order] * self.window.to(y) * self.gain + self.tables["shift"]


class Functional(nn.Module):
    """Raw parameters in functional calls of every rank."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.kernel = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.back = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.mix = nn.Parameter(torch.ones(3, 3))
        self.map = nn.Parameter(torch.ones(3, 1, 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.slope = nn.Parameter(torch.ones(4))

    def forward(self, x):
        y = F.prelu(F.conv2d(self.conv(x), self.kernel, padding=1), self.slope)
        y = F.conv_transpose2d(y, self.back, padding=1) * self.scale + self.map
        mixed = F.linear(y.movedim(1, 3), self.mix).movedim(3, 1)
        return torch.einsum("oc,nchw->nohw", self.mix, y) + mixed


class Tied(Body):
    """One layer twice, one weight under two names, and its transpose."""

    def __init__(self):
        super().__init__(3)
        self.tail.weight = self.head.weight

    def between(self, y):
        return torch.tanh(F.conv_transpose2d(self.head(y), self.head.weight, padding=1))


class WeightOfWeights(Body):
    """Kernels that are computed from parameters: standardised, masked, flipped, a product."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(2, 4))
        self.register_buffer("mask", torch.ones(4, 1, 3, 3).tril())

    def between(self, y):
        w = self.head.weight.mean(1, keepdim=True)
        w = (w - w.mean((2, 3), keepdim=True)) * self.mask
        y = F.conv2d(y, w.flip(2), padding=1, groups=4)
        return F.conv2d(y, (self.low @ self.high)[..., None, None], self.high[0])


class SequenceFirst(nn.Module):
    """Positions first, samples second: as recurrent nets and attention are often written."""

    def __init__(self):
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.gru = nn.GRU(4, 4)
        self.heads = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        y = self.conv(x).flatten(2).permute(2, 0, 1)  # [H·W, N, 4]
        y = y + self.gru(y)[0]
        y = y + self.heads(self.norm(y), y, y, need_weights=True)[0]
        return self.tail(y.permute(1, 2, 0).reshape(-1, 4, *x.shape[2:]))


class Reshapes(Body):
    """reshape(-1), samples and channels in one dimension, batch sizes written out."""

    def between(self, y):
        n, c, h, w = y.shape
        flat = y.permute(2, 3, 0, 1).reshape(-1) * torch.arange(y.numel()).to(y).cos()
        y = flat.reshape(h, w, n * c).permute(2, 0, 1).reshape(-1, 1, h, w)
        return F.avg_pool2d(y, 3, 1, 1).view(n, c, h, w).expand(n, c, h, w)


class Tables(nn.Module):
    """Positional tables, embeddings of rounded values, a table looked up by relative position."""

    def __init__(self):
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.rows, self.levels = nn.Embedding(7, 4), nn.Embedding(5, 4, padding_idx=0)
        self.bias = nn.Parameter(torch.ones(4, 9, 9))
        offsets = torch.arange(4)[:, None] - torch.arange(4) + 3
        self.register_buffer("offsets", offsets)
        self.relative = nn.Parameter(torch.ones(7, 2))

    def forward(self, x):
        y = torch.tanh(self.conv(x)) + self.bias[:, : x.shape[2], : x.shape[3]]
        y = y + self.rows(torch.arange(x.shape[2]))[None, :, None].permute(0, 3, 1, 2)
        levels = self.levels((x[:, 0] * 4).long())  # [N, H, W, 4]
        mix = self.relative[self.offsets].mean(-1)  # [4, 4]
        return self.tail(y + torch.einsum("nhwc,cd->ndhw", levels, mix.softmax(-1)))


class Windows(nn.Module):
    """Attention inside windows: they are split into the batch, shifted by a roll."""

    def __init__(self):
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.qkv, self.norm = nn.Linear(4, 12), nn.LayerNorm(4)
        self.table = nn.Parameter(torch.ones(2, 4, 4))

    def forward(self, x):
        h, w = x.shape[2:]
        y = self.conv(F.pad(x, (0, w % 2, 0, h % 2), mode="replicate"))
        n, c, h2, w2 = y.shape
        y = torch.roll(y.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        y = y.view(n, h2 // 2, 2, w2 // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(self.norm(y)).reshape(len(y), 4, 3, 2, 2).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=self.table[None])
        y = y + a.transpose(1, 2).reshape(len(y), 4, c)
        y = y.view(n, h2 // 2, w2 // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h2, w2, c)
        return self.tail(torch.roll(y, (1, 1), (1, 2)).permute(0, 3, 1, 2)[..., :h, :w])


class DynamicFilter(Body):
    """A kernel for every image, computed from the image, applied by grouped convolution."""

    def __init__(self):
        super().__init__()
        self.makes = nn.Linear(4, 36)

    def between(self, y):
        kernels = self.makes(y.mean((2, 3))).view(-1, 1, 3, 3)
        n, c, h, w = y.shape
        return F.conv2d(y.reshape(1, n * c, h, w), kernels, padding=1, groups=n * c).view_as(y)


class Unbatched(nn.Module):
    """Convolutions of samples without a batch dimension, one after the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.slope = nn.PReLU()

    def forward(self, x):
        return torch.stack([self.b(self.slope(self.a(one))) for one in x])


class Selects(Body):
    """where, masks, gather, sorting, cumulative sums, norms and Fourier transforms."""

    def between(self, y):
        y = torch.where(y > 0.1, y, y.roll(1, 3) * 0.5)
        order = y.detach().abs().mean((2, 3)).argsort(1)[..., None, None].expand_as(y)
        y = y.gather(1, order) + y[:, [3, 1, 0, 2]].masked_fill(y < -0.5, 0.3)
        y = y + y.cumsum(2) * 0.1 + torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[2:])
        top = y.flatten(2).topk(3, -1)[0].sum(-1)[..., None, None]
        return F.normalize(y, dim=1) + y / (1 + y.norm(dim=(2, 3), keepdim=True)) + 0.1 * top


class Detached(Body):
    """A part without gradient, by detach and by no_grad."""

    def between(self, y):
        with torch.no_grad():
            gain = y.mean((2, 3), keepdim=True) + self.head.bias.view(4, 1, 1)
        return y * (1 + gain) + y.detach().square()


class Squeezes(Body):
    """Channel attention: pooling to one pixel, 1×1 convolutions, a product with what came in."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def between(self, y):
        return y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))


class Resizes(Body):
    """Interpolation by every method, pooling, and back."""

    def between(self, y):
        small = F.avg_pool2d(F.pad(y, (1, 0, 0, 1), mode="circular"), 2, ceil_mode=True)
        back = F.interpolate(small, size=y.shape[2:], mode="bilinear", align_corners=False)
        near = F.interpolate(y, scale_factor=2, mode="nearest")
        cubic = F.interpolate(y, size=near.shape[2:], mode="bicubic")
        return (
            back
            + F.max_pool2d(near + cubic, 2)
            + F.unfold(y, 3, padding=1).mean(1).view(len(y), 1, *y.shape[2:])
        )


class OwnGradient(torch.autograd.Function):
    """Rounds, and passes the gradient on as if it had not."""

    @staticmethod
    def forward(ctx, x):
        return (x * 8).round() / 8

    @staticmethod
    def backward(ctx, gy):
        return gy


class StraightThrough(Body):
    def between(self, y):
        return OwnGradient.apply(y)


class MixesBatch(Body):
    """Means over the batch: of a single image, they are that image."""

    def between(self, y):
        return y - 0.5 * y.mean(0, keepdim=True) + y.sum(0).softmax(0)


class Keeps(Body):
    """Leaves what it computed on itself, counts its calls in a buffer and writes on its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        x.mul_(1 + self.calls)
        self.calls += 1
        return super().forward(x)

    def between(self, y):
        self.kept = y
        return self.kept * self.calls


class Fp32Island(Body):
    """A part in another precision."""

    def between(self, y):
        return F.softplus(y.to(torch.float64)).to(y.dtype) + y.double().float().to(y.dtype)


class Residuals(nn.Module):
    """What is fused: activations, factors, shuffles and residuals, and their near misses."""

    def __init__(self):
        super().__init__()
        self.c = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(8)])
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 3, 2, stride=2)
        self.slope = nn.PReLU(4)
        self.one = nn.PReLU()

    def forward(self, x):
        y = F.leaky_relu(self.head(x), 0.2)
        y = torch.add(y, F.gelu(self.c[0](y)), alpha=0.3)
        y = torch.add(self.c[1](y) * 0.2, y, alpha=-0.5)
        z = self.c[2](y)
        y = F.silu(z) + z
        y = self.slope(self.c[3](y)) * 0.7 + y.mean((2, 3), keepdim=True)
        y = self.one(self.c[4](y)) + y
        y = self.c[5](y) + self.c[6](y) * 2
        y = F.gelu(self.c[7](y), approximate="tanh") * y
        y = y + y
        y = F.leaky_relu(y, -0.1).sigmoid() + torch.relu(-y)
        return self.tail(F.relu(F.pixel_shuffle(self.c[0](y), 2)))


class JoinedImage(nn.Module):
    """A dense block that begins with a concatenation of images alone."""

    def __init__(self):
        super().__init__()
        self.c = nn.ModuleList([nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3)])
        self.tail = nn.Conv2d(18, 3, 1)

    def forward(self, x):
        y = torch.cat([x, x.flip(-1)], 1)
        for layer in self.c:
            y = torch.cat([y, F.leaky_relu(layer(y), -0.2)], 1)
        return self.tail(y)


class ComplexFilter(Body):
    """A raw parameter of four dimensions, whose last one must stay last."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 5, 3, 2))

    def between(self, y):
        spectrum = torch.fft.rfft2(y, s=(5, 4)) * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(spectrum, s=y.shape[2:])


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
# These cannot be captured, or not rightly, and run point by point: why.
SLOW = {"control flow on values": "data-dependent", "own gradient": "OwnGradient may have"}
# One operation of these has no rule and cannot be mapped.
LOOPED = {"sequence first": "aten.gru.input"}


def near(make, dtype=torch.float64):
    """Give a target near the baseline: on the line between two random nets a norm may vanish."""
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
