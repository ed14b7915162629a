"""Filters of a network by number, sets of filters, and the layers that are scored."""

from faigfast.filters.dial import Dial
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

__all__ = ["Dial", "FilterIndex", "FilterSet"]
