"""Filters of a network by number, sets of them, and which of them are scored."""

from faigfast.filters.filter_set import FilterIndex, FilterSet

__all__ = ["FilterIndex", "FilterSet"]
