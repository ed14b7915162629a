"""Networks whose Python is hard to run for many images and points of the line at once."""

import torch
from torch import nn
from torch.nn import functional as F


class Body(nn.Module):
    """Two 3×3 convolutions, head and tail; subclasses put an operation between them."""

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
    """Writes to the output of dropout in eval mode, which is its input, and reads the input."""

    def between(self, y):
        y = y + 0.1
        kept = F.dropout(y, 0.5, training=False)
        kept.mul_(0.5)
        return y + kept


class Nested(nn.Module):
    """Lists and dicts of modules and parameters, used out of order and some of them twice."""

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
    image_loss = (output["image"] - gt * x).square().flatten(1).sum(1)
    return image_loss + output["level"] * first.square()


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


class Tied(Body):
    """One layer twice, one weight under two names, and its transpose."""

    def __init__(self):
        super().__init__(3)
        self.tail.weight = self.head.weight

    def between(self, y):
        return torch.tanh(F.conv_transpose2d(self.head(y), self.head.weight, padding=1))


class Unbatched(nn.Module):
    """Convolutions of samples without a batch dimension, one after the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.slope = nn.PReLU()

    def forward(self, x):
        return torch.stack([self.b(self.slope(self.a(one))) for one in x])


class Detached(Body):
    """Parts without gradient, by detach and by no_grad."""

    def between(self, y):
        with torch.no_grad():
            gain = y.mean((2, 3), keepdim=True) + self.head.bias.view(4, 1, 1)
        return y * (1 + gain) + y.detach().square()


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
    """Means over the batch, which for one image are the image itself."""

    def between(self, y):
        return y - 0.5 * y.mean(0, keepdim=True) + y.sum(0).softmax(0)


class Keeps(Body):
    """Keeps its result as an attribute, counts calls in a buffer and writes to its input."""

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
