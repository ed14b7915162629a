"""Filters of a network by number, sets of filters, and the layers that are scored."""

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

__all__ = ["FilterIndex", "FilterSet"]
