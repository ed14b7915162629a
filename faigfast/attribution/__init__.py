"""`attribute` and `Attributor`: two networks and images in, scores of all filters out."""

from faigfast.attribution.attributor import Attributor
from faigfast.attribution.one_call import attribute

__all__ = ["Attributor", "attribute"]
