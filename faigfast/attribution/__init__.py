"""`attribute` and `Attributor`: two networks and images in, scores of all filters out."""

from faigfast.attribution.attributor import Attributor, attribute

__all__ = ["Attributor", "attribute"]
