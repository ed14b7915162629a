"""FilterIndex: the number of every filter, one k×k slice of a convolution's weight."""

import hashlib
import itertools
import operator
from bisect import bisect_right
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from faigfast.models.state import identity, tensors, undisturbed, unwrap

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# Where the state dict keeps a convolution's weight: plain, parametrized, or by the older hooks.
_PARAMETRIZED = "parametrizations.weight.original"
WEIGHT_KEYS = ("weight", _PARAMETRIZED, f"{_PARAMETRIZED}1", "weight_v", "weight_orig")


@dataclass(frozen=True)
class FilterIndex:
    """Numbers every filter of a network: one k×k slice of a convolution's weight.

    Flat index: convolution weights in state-dict order, row-major in their first two dimensions as
    stored. The authors number filters in the same way.

    Parameters
    ----------
    layers : tuple of str
        State-dict keys of the weights.
    shapes : tuple of tuple of int
        Their shapes, [O, I, *k] (transposed convolutions: [I, O, *k]).

    Examples
    --------
    >>> FilterIndex.of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))).locate(25)
    ('1.weight', 0, 1)
    """

    layers: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First flat index of each layer, and F."""
        counts = (shape[0] * shape[1] for shape in self.shapes)
        return tuple(itertools.accumulate(counts, initial=0))

    @classmethod
    def of(cls, model: nn.Module) -> "FilterIndex":
        """Give every filter of a module its number.

        A weight that several layers share is listed under its first key. A parametrized weight is
        listed under the state-dict tensor of its shape (for weight norm the direction).
        """
        module = unwrap(model, "model")
        state = tensors(module)
        weights = set()
        modules = module.named_modules(remove_duplicate=False)
        convolutions = [(name, layer) for name, layer in modules if isinstance(layer, CONVOLUTIONS)]
        computed = any("weight" not in layer._parameters for _, layer in convolutions)
        with undisturbed(module) if computed else nullcontext():
            for name, layer in convolutions:
                keys = (f"{name}.{tail}".lstrip(".") for tail in WEIGHT_KEYS)
                shape = layer.weight.shape
                weights.add(next((k for k in keys if k in state and state[k].shape == shape), None))
        shapes: dict[str, tuple[int, ...]] = {}
        seen = set()
        for key, value in state.items():
            if key in weights and value.numel() and identity(value) not in seen:
                seen.add(identity(value))
                shapes[key] = tuple(value.shape)
        return cls(tuple(shapes), tuple(shapes.values()))

    def __len__(self) -> int:
        """Count the filters, F."""
        return self.offsets[-1]

    def locate(self, flat: int) -> tuple[str, int, int]:
        """Give (key, out, in) of a filter: the slice `state[key][out, in]` of the state dict.

        Parameters
        ----------
        flat : int
            Flat index in [0, F).

        Returns
        -------
        layer : str
        out, in : int
            In stored order: a transposed convolution stores the input channel first.

        Raises
        ------
        IndexError
            If there is no such filter.
        """
        flat = operator.index(flat)
        if not 0 <= flat < len(self):
            raise IndexError(f"filter {flat} does not exist; expected 0 to {len(self) - 1}")
        layer = bisect_right(self.offsets, flat) - 1
        row, column = divmod(flat - self.offsets[layer], self.shapes[layer][1])
        return self.layers[layer], row, column

    def locate_all(self, flat: Tensor) -> tuple[list[str], Tensor, Tensor]:
        """As `locate`, for flat indices [K] in [0, F): K layers, and [K] of each index."""
        starts = torch.tensor(self.offsets, device=flat.device)
        layer = torch.bucketize(flat, starts, right=True) - 1
        widths = torch.tensor([shape[1] for shape in self.shapes], device=flat.device)[layer]
        within = flat - starts[layer]
        return [self.layers[n] for n in layer.tolist()], within // widths, within % widths

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all names and shapes, 16 hexadecimal digits."""
        text = ";".join(
            f"{layer} {'x'.join(map(str, shape))}"
            for layer, shape in zip(self.layers, self.shapes, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]
