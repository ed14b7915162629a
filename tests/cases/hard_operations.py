"""Networks whose operations are hard to run for many images and points of the line at once."""

import torch
from cases.hard_networks import Body
from torch import nn
from torch.nn import functional as F


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


class WeightOfWeights(Body):
    """Kernels computed from parameters: standardised, masked, flipped, a product."""

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
    """Positions first, samples second, as in many recurrent nets and attention layers."""

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
    """reshape(-1), samples and channels in one dimension, and batch sizes as constants."""

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
    """Attention in windows that are part of the batch dimension and shifted by a roll."""

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
    """Computes a kernel from every image and applies it by a grouped convolution."""

    def __init__(self):
        super().__init__()
        self.makes = nn.Linear(4, 36)

    def between(self, y):
        kernels = self.makes(y.mean((2, 3))).view(-1, 1, 3, 3)
        n, c, h, w = y.shape
        return F.conv2d(y.reshape(1, n * c, h, w), kernels, padding=1, groups=n * c).view_as(y)


class Selects(Body):
    """where, masks, gather, sorting, cumulative sums, norms and Fourier transforms."""

    def between(self, y):
        y = torch.where(y > 0.1, y, y.roll(1, 3) * 0.5)
        order = y.detach().abs().mean((2, 3)).argsort(1)[..., None, None].expand_as(y)
        y = y.gather(1, order) + y[:, [3, 1, 0, 2]].masked_fill(y < -0.5, 0.3)
        y = y + y.cumsum(2) * 0.1 + torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[2:])
        top = y.flatten(2).topk(3, -1)[0].sum(-1)[..., None, None]
        return F.normalize(y, dim=1) + y / (1 + y.norm(dim=(2, 3), keepdim=True)) + 0.1 * top


class Squeezes(Body):
    """Channel attention: pooling to one pixel, 1×1 convolutions, a product with the input."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def between(self, y):
        return y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))


class Resizes(Body):
    """Interpolation by every method, up and down, and pooling."""

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


class Residuals(nn.Module):
    """Activations, factors, shuffles and residuals that can be fused, and some that cannot."""

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
    """A dense block whose first concatenation holds only images."""

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
    """A raw four-dimensional parameter whose last dimension must stay last."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 5, 3, 2))

    def between(self, y):
        spectrum = torch.fft.rfft2(y, s=(5, 4)) * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(spectrum, s=y.shape[2:])


class NormsTurned(Body):
    """Group norm of a tensor whose axes were exchanged, after a write that others see."""

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)

    def between(self, y):
        halves = torch.zeros_like(y)
        halves[:, :2] = y[:, 2:]
        turned = (halves + y).flatten(2).transpose(1, 2).reshape(len(y), *y.shape[2:], 4)
        return self.norm(turned.permute(0, 3, 1, 2))
