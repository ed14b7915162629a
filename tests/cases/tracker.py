"""A short training of a tiny network, and a tracker of it."""

import copy

import torch
from cases.networks import images
from torch import nn

from faigfast.training import Tracker

NAMES = ("blur", "noise")


def network(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1),
        )  # fmt: skip


def batch(n=2):
    (x, gt), (other, _) = images(n, dtype=torch.float32), images(n, dtype=torch.float32, seed=1)
    return {"lq": {"blur": x, "noise": other}, "gt": gt}


def optimizer_of(net, kind=torch.optim.AdamW):
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return kind(net.parameters(), 1e-2, weight_decay=0.1, **settings)


def train(net, optimizer, steps, tracker=None, first=1):
    """Train with dropout and random crops, so that generators matter."""
    given, snapshots = batch(4), []
    for step in range(first, first + steps):
        x = given["lq"][NAMES[step % 2]][torch.randint(4, (2,))]
        optimizer.zero_grad()
        nn.functional.l1_loss(net(x), given["gt"][:2]).backward()
        optimizer.step()
        if tracker is not None and tracker(net, step):
            snapshots.append(copy.deepcopy(net))
    return snapshots


def tracker_of(net, **options):
    return Tracker(net, **{"images": batch(), "every": 5, "fraction": 0.2, "steps": 2} | options)
