"""A pair of networks whose errors show, and errors by hand, for the tests of accuracy."""

from cases.networks import randomise

from faigfast.zoo import SRCNNStyle

NAMES = ("one", "two")  # of the pictures


def tiny(name):
    """A pair far enough apart for errors that show."""
    nets = (SRCNNStyle((3, 5), scale=2) for _ in range(2))
    return tuple(randomise(net, seed).eval() for seed, net in enumerate(nets, 1))


def errors_by_hand(result, exact):
    return [
        float((a.double() - b).abs().sum() / b.abs().sum())
        for name in exact.degradations
        for a, b in zip(result.scores(name), exact.scores(name), strict=True)
    ]
