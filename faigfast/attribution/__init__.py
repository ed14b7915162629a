"""`attribute` and `Attributor`: two networks and images in, scores of all filters out."""

from faigfast.attribution.attribute import attribute
from faigfast.attribution.attributor import Attributor

__all__ = ["Attributor", "attribute"]
