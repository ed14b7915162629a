"""Small networks whose scores rank nothing: merged in forward, detached, rounded or not used."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


class MergedInForward(nn.Module):
    """Two branches, merged into one kernel by every forward; see the subclasses."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 3, padding=1)
        self.narrow = nn.Conv2d(3, 4, 1)
        self.merged = nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def kernel(self):
        return self.wide.weight + F.pad(self.narrow.weight, [1, 1, 1, 1])

    def merge(self):
        self.merged.weight.data = self.kernel().data.clone()
        self.merged.bias.data = (self.wide.bias + self.narrow.bias).data.clone()

    def forward(self, x):
        self.merge()
        return self.tail(self.merged(x).relu())


class SPANLike(MergedInForward):
    """As SPAN: a new kernel under `.data`."""


class RepVGGLike(MergedInForward):
    """A kernel copied under `no_grad`."""

    def merge(self):
        with torch.no_grad():
            self.merged.weight.copy_(self.kernel())
            self.merged.bias.copy_(self.wide.bias + self.narrow.bias)


class CopiedUnderData(MergedInForward):
    """A kernel copied under `.data`, whose writes the tensor does not count."""

    def merge(self):
        self.merged.weight.data.copy_(self.kernel())


def merge_branches(net):
    """The `fuse` of these networks."""
    net.merge()
    return nn.Sequential(net.merged, nn.ReLU(), net.tail)


def merge_in_place(net):
    """As `merge_branches`, but changes the network itself."""
    net.merge()
    net.merge = lambda: None
    net.wide = net.narrow = None


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        return self.tail(self.between(x))

    def between(self, x):
        return self.head(x).relu()


class UnderNoGrad(TwoLayers):
    def between(self, x):
        with torch.no_grad():
            return self.head(x)


class Detached(TwoLayers):
    def between(self, x):
        return self.head(x).detach()


class Rounded(TwoLayers):
    def between(self, x):
        return (8 * self.head(x)).round() / 8


class Floored(TwoLayers):
    def between(self, x):
        return self.head(x).floor()


class Chosen(TwoLayers):
    """The numbers of the largest channels."""

    def between(self, x):
        return self.head(x).argmax(1, keepdim=True).expand(-1, 4, -1, -1).to(x.dtype)


class RoundedOutput(TwoLayers):
    """As networks that give 8 bit: no gradient reaches any weight."""

    def forward(self, x):
        return (255 * super().forward(x)).round() / 255


class Holder(nn.Module):
    """A network beside the average of its weights, which alone is used."""

    def __init__(self):
        super().__init__()
        self.online = TwoLayers()
        self.averaged = copy.deepcopy(self.online)

    def forward(self, x):
        return self.averaged(x)
