"""Filters as a pandas table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.filters.index import FilterIndex

if TYPE_CHECKING:
    import pandas


def filter_data_frame(
    indices: Tensor, index: FilterIndex, columns: Mapping[str, Tensor] | None = None
) -> "pandas.DataFrame":
    """Give one row per filter: flat, layer, out, in, and further columns.

    Parameters
    ----------
    indices : Tensor
        [K], flat indices.
    index : FilterIndex
        All F filters.
    columns : mapping of str to Tensor, optional
        [F] each, by name.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("a table needs pandas: pip install 'faigfast[report]'") from None
    layers, outputs, inputs = index.locate_all(indices)
    values = {name: column[indices] for name, column in (columns or {}).items()}
    return pandas.DataFrame(
        {"flat": indices, "layer": layers, "out": outputs, "in": inputs, **values}
    )
