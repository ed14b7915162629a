"""Filters as a pandas table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.io.pandas_module import pandas_module

if TYPE_CHECKING:
    import pandas


def filter_data_frame(
    indices: Tensor,
    index: FilterIndex,
    columns: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> "pandas.DataFrame":
    """Give one row per filter: flat, layer, out, in; or one per degradation and filter.

    Parameters
    ----------
    indices : Tensor
        [K], flat indices.
    index : FilterIndex
        All F filters.
    columns : mapping of str to mapping of str to Tensor, optional
        Degradation to column to [F]; the degradation is a column too.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    pandas = pandas_module()
    layers, outputs, inputs = index.locate_all(indices)
    filters = pandas.DataFrame(
        {"flat": indices.numpy(), "layer": layers, "out": outputs, "in": inputs}
    )
    if columns is None:
        return filters
    parts = [
        filters.assign(
            degradation=degradation, **{name: v[indices].numpy() for name, v in values.items()}
        )
        for degradation, values in columns.items()
    ]
    return pandas.concat(parts, ignore_index=True)
