"""Networks and objectives for the processes of other devices; some fail on purpose."""

import os

import torch
from torch import nn


class Touchy(nn.Module):
    """Two convolutions; an image whose first value is 0.5 ends the process."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)
        )

    def forward(self, x):
        if not torch.compiler.is_compiling() and type(x) is torch.Tensor and x.numel() > 90:
            os._exit(7)
        return self.net(x)


def half_squared(output, gt):
    return 0.5 * (output - gt).square().flatten(1).sum(1)
