"""A tiny pair with measurable errors, and errors by hand, for the accuracy tests."""

from cases.networks import randomise

from faigfast.zoo import SRCNNStyle

NAMES = ("one", "two")  # picture names


def tiny(name):
    """A pair far enough apart for measurable errors."""
    nets = (SRCNNStyle((3, 5), scale=2) for _ in range(2))
    return tuple(randomise(net, seed).eval() for seed, net in enumerate(nets, 1))


def errors_by_hand(result, exact):
    return [
        float((a.double() - b).abs().sum() / b.abs().sum())
        for name in exact.degradations
        for a, b in zip(result.scores(name), exact.scores(name), strict=True)
    ]
