"""pandas, which is an extra: imported where a table is made."""

from typing import Any


def pandas_module() -> Any:
    """Give the module pandas.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("a table needs pandas: pip install 'faigfast[report]'") from None
    return pandas
