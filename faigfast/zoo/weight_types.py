"""Types of weights: one for a whole network, whatever types its file mixes."""

from collections.abc import Mapping

import torch
from torch import Tensor

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def weight_type(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Read the type of a network's weights.

    Raises
    ------
    TypeError
        If it is neither a type nor the name of one.
    ValueError
        If it is not one of the four that networks compute in.
    """
    if dtype is None:
        return None
    if not isinstance(dtype, str | torch.dtype):
        raise TypeError(f"dtype is a {type(dtype).__name__}; expected a torch.dtype or its name")
    name = str(dtype).removeprefix("torch.")
    if name not in TYPES:
        raise ValueError(f"dtype is {name[:50]!r}; expected one of {', '.join(TYPES)}")
    return TYPES[name]


def of_one_type(
    state: Mapping[str, Tensor], dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], str]:
    """Convert the floating-point tensors of a state dict to one type.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors.
    dtype : torch.dtype or None
        The type. By default the tensors' own; float32 if they have several or one in which no
        network computes, such as float8.

    Returns
    -------
    converted : dict of str to Tensor
        The tensors; integers are the same.
    remark : str
        "float16 and float32 read as float32", or "" where nothing changed.

    Raises
    ------
    ValueError
        If torch cannot convert one of the types.
    """
    types = dict.fromkeys(v.dtype for v in state.values() if v.is_floating_point())
    if dtype is None and (len(types) > 1 or not set(types) <= set(TYPES.values())):
        dtype = torch.float32
    if dtype is None or set(types) <= {dtype}:
        return dict(state), ""
    names = sorted(_name(stored) for stored in types)
    try:
        converted = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    except (NotImplementedError, RuntimeError):  # types that torch cannot convert
        raise ValueError(
            f"weights are of {' and '.join(names)}; expected types that torch can convert, such as "
            f"{', '.join(TYPES)}"
        ) from None
    return converted, f"{' and '.join(names)} read as {_name(dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
