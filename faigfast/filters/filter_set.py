"""FilterSet: filters of one network, best first; to swap, compare with networks and save."""

import hashlib
import math
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, SupportsIndex, overload

import torch
from torch import Tensor, nn

from faigfast.filters.filter_data_frame import filter_data_frame
from faigfast.filters.index import FilterIndex
from faigfast.filters.index_file import IndexFile, read_index_file, write_index_file
from faigfast.filters.layer_counts import layers_in_words
from faigfast.filters.same_network import check_same_pair, common_network
from faigfast.filters.swapping import swapped

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class FilterSet:
    """Filters of one network, best first.

    A set of filters in an order. `len`, iteration and `[i]` follow the order: a filter is
    (layer, out, in), as `FilterIndex.locate` gives it. `in` takes such a triple or a flat index.
    `a & b` and `a - b` keep the order of `a`; `a | b` lists `a`, then the filters of `b` alone, in
    the order of `b`. `a == b` if both hold the same filters of the same layers, in any order; equal
    sets have equal hashes. `&`, `|` and `-` refuse sets of different networks.

    Parameters
    ----------
    indices : Tensor
        [K], int64, flat indices without repetition. K = 0 needs a tensor of integers.
    total : int, optional
        Number F of filters of the network; None if the file does not state it.
    index : str
        Fingerprint of the `FilterIndex`; empty if the file does not state it.
    baseline, target : str
        Fingerprints of the two networks; empty if unknown.
    filter_index : FilterIndex, optional
        Layers and shapes of the network, which locate the filters; `total` and `index` follow from
        it. None if unknown, as in the authors' files.

    Raises
    ------
    ValueError
        If the indices are not a list of different filters of the network.

    Examples
    --------
    >>> index = FilterIndex.of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)))
    >>> first, second = (FilterSet(n, filter_index=index) for n in ([25, 4, 7], [7, 25, 1]))
    >>> list(first & second), ("0.weight", 0, 1) in first | second
    ([('1.weight', 0, 1), ('0.weight', 2, 1)], True)
    """

    indices: Tensor
    total: int | None = None
    index: str = ""
    baseline: str = ""
    target: str = ""
    filter_index: FilterIndex | None = None

    def __post_init__(self) -> None:
        """Check the indices, and store them as int64 on the CPU."""
        check_total(self.total)
        self._take_filter_index()
        try:
            indices = torch.as_tensor(self.indices)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(
                f"indices are a {type(self.indices).__name__}; expected a list of integers"
            ) from None
        if indices.is_meta or indices.is_nested or indices.layout != torch.strided:
            kind = "meta" if indices.is_meta else "nested" if indices.is_nested else "sparse"
            raise TypeError(f"indices are a {kind} tensor; expected a list of integers")
        if indices.numel() == 0 and indices.is_floating_point():  # also an empty list
            raise ValueError("indices are empty; expected at least one filter")
        whole = not (indices.is_floating_point() or indices.is_complex())
        if indices.ndim != 1 or not whole or indices.dtype == torch.bool:
            raise ValueError(
                f"indices are {list(indices.shape)} of {indices.dtype}; expected a list of integers"
            )
        indices = indices.to("cpu", torch.int64)
        object.__setattr__(self, "indices", indices)
        if not len(indices):
            return
        top = math.inf if self.total is None else self.total
        if int(indices.min()) < 0 or int(indices.max()) >= top:
            raise ValueError(
                f"indices run from {int(indices.min())} to {int(indices.max())}; expected them "
                f"within 0 … {'F' if self.total is None else self.total} - 1"
            )
        if len(indices.unique()) != len(indices):
            raise ValueError("indices name a filter twice; expected each once")

    def _take_filter_index(self) -> None:
        """Take total and fingerprint from the `FilterIndex`; refuse others."""
        listed = self.filter_index
        if listed is None:
            return
        if not isinstance(listed, FilterIndex):
            raise TypeError(f"filter_index is a {type(listed).__name__}; expected a FilterIndex")
        if self.index not in ("", listed.fingerprint) or self.total not in (None, len(listed)):
            raise ValueError(
                f"filter_index is of the network {listed.fingerprint} with {len(listed)} filters; "
                f"expected {self.index or 'any'} with {self.total} filters"
            )
        object.__setattr__(self, "index", listed.fingerprint)
        object.__setattr__(self, "total", len(listed))

    def __repr__(self) -> str:
        first = ", ".join(map(str, self.indices[:5].tolist()))
        more = ", …" if len(self) > 5 else ""
        within = ""
        if self.filter_index is not None and len(self):
            within = f" in {layers_in_words(self.indices, self.filter_index)}"
        colon = ": " if len(self) else ""
        return f"FilterSet({len(self)} of {self.total or 'F'} filters{within}{colon}{first}{more})"

    def __len__(self) -> int:
        """Count the filters, K."""
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Give (layer, out, in) of every filter, best first."""
        layers, outputs, inputs = self._known_index().locate_all(self.indices)
        return zip(layers, outputs.tolist(), inputs.tolist(), strict=True)

    def __contains__(self, filter_: object) -> bool:
        """Whether the set holds a filter, given as (layer, out, in) or as its flat index."""
        if isinstance(filter_, tuple) and len(filter_) == 3 and isinstance(filter_[0], str):
            return self._flat(*filter_) in self.indices.tolist()
        if isinstance(filter_, SupportsIndex) and not isinstance(filter_, bool):
            return bool((self.indices == operator.index(filter_)).any())
        raise TypeError(f"{filter_!r} is no filter; expected (layer, out, in) or a flat index")

    @overload
    def __getitem__(self, part: slice) -> "FilterSet": ...
    @overload
    def __getitem__(self, part: SupportsIndex) -> tuple[str, int, int]: ...
    def __getitem__(self, part: slice | SupportsIndex) -> "FilterSet | tuple[str, int, int]":
        """Give (layer, out, in) at a place, or the set of a slice, such as `ranking[:100]`."""
        if isinstance(part, slice):
            return replace(self, indices=self._cut(part))
        if not isinstance(part, SupportsIndex) or isinstance(part, bool):
            raise TypeError(f"a set is cut by an integer or a slice, not by {part!r}")
        place = operator.index(part)
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} is outside a set of {len(self)} filters")
        return self._known_index().locate(int(self.indices[place]))

    def __and__(self, other: object) -> "FilterSet":
        """Take the filters of both sets, in the order of this one."""
        return self._combined(other, lambda own, others: own[torch.isin(own, others)])

    def __sub__(self, other: object) -> "FilterSet":
        """Leave out the filters of another set; the order stays."""
        return self._combined(other, lambda own, others: own[~torch.isin(own, others)])

    def __or__(self, other: object) -> "FilterSet":
        """Append the filters that only the other set has, in its order."""
        return self._combined(
            other, lambda own, others: torch.cat([own, others[~torch.isin(others, own)]])
        )

    def __eq__(self, other: object) -> bool:
        """Whether both sets hold the same filters of the same layers, in any order."""
        if not isinstance(other, FilterSet):
            return NotImplemented
        if (self.index, self.total) != (other.index, other.total):
            return False
        return torch.equal(self.indices.sort().values, other.indices.sort().values)

    def __hash__(self) -> int:
        return hash((self.index, self.total, self.digest))

    @property
    def digest(self) -> str:
        """Hash of the indices in any order, 16 hexadecimal digits."""
        indices = self.indices.sort().values
        return hashlib.sha256(indices.numpy().tobytes()).hexdigest()[:16]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per filter, best first: flat, layer, out, in.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            If the set does not know its layers.
        """
        return filter_data_frame(self.indices, self._known_index())

    def swap(
        self,
        baseline: nn.Module,
        target: nn.Module,
        strength: float = 0.0,
        *,
        biases: bool = False,
    ) -> nn.Module:
        """Copy the target with these filters at baseline + strength·(target − baseline).

        Parameters
        ----------
        baseline, target : nn.Module
            The two networks, unchanged afterwards.
        strength : float
            0 masks the filters, 1 changes nothing; between 0 and 1 modulates, above 1 extrapolates.
        biases : bool
            Move the bias of an output channel too if all filters of the channel are in the set.
            A network of convolutions alone has no more than filters and biases: with all of them,
            strength 0 gives the baseline to the bit. False as in the paper, where biases stay the
            target's. Other tensors, such as those of norms and activations, always stay.

        Returns
        -------
        nn.Module
            A copy of the target, in the target's modes.

        Raises
        ------
        ValueError
            If the networks are exchanged, or their architecture is not that of the set,
            or the strength is not finite.

        Examples
        --------
        >>> a, b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        >>> torch.equal(FilterSet(torch.tensor([4])).swap(a, b).weight[1, 1], a.weight[1, 1])
        True
        """
        return swapped(self, baseline, target, strength, biases=biases)

    def masks(self, index: FilterIndex) -> dict[str, Tensor]:
        """Mark the filters in bool masks over the first two dimensions of their layers.

        Parameters
        ----------
        index : FilterIndex
            Of the network.

        Returns
        -------
        dict of str to Tensor
            By state-dict key, [O, I] (transposed convolutions: [I, O]), for layers with filters.

        Raises
        ------
        ValueError
            If the filters belong to another network.
        """
        if not isinstance(index, FilterIndex):
            raise TypeError(f"index is a {type(index).__name__}; expected a FilterIndex")
        if self.index and self.index != index.fingerprint:
            raise ValueError(
                f"the filters belong to the network {self.index} with {self.total} filters, not to "
                f"{index.fingerprint} with {len(index)}"
            )
        if len(self) and int(self.indices.max()) >= len(index):
            raise ValueError(
                f"filter {int(self.indices.max())} does not exist in a network of {len(index)}"
            )
        if self.total not in (None, len(index)):
            raise ValueError(
                f"the filters are of a network with {self.total} filters, not of {len(index)}"
            )
        chosen = torch.zeros(len(index), dtype=torch.bool)
        chosen[self.indices] = True
        layers = zip(index.layers, index.shapes, index.offsets, index.offsets[1:], strict=False)
        masks = {layer: chosen[low:high].view(shape[:2]) for layer, shape, low, high in layers}
        return {layer: mask for layer, mask in masks.items() if mask.any()}

    def check_pair(self, baseline: nn.Module, target: nn.Module) -> None:
        """Refuse networks other than the pair whose attribution gave the filters.

        Parameters
        ----------
        baseline, target : nn.Module
            The two networks; a set without fingerprints accepts any networks of its
            architecture.

        Raises
        ------
        ValueError
            If baseline or target is another network, with both fingerprints.
        """
        check_same_pair(self, baseline, target)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the authors' text format: one index a line, below `#` lines that they skip.

        Raises
        ------
        ValueError
            If the set is empty.
        """
        if not len(self):
            raise ValueError("the set is empty; expected at least one filter to save")
        header = {
            "filters": str(self.total) if self.total is not None else "",
            "index": self.index,
            "baseline": self.baseline,
            "target": self.target,
        }
        write_index_file(path, IndexFile(self.indices.tolist(), header, self.filter_index))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        total: int | None = None,
        filter_index: FilterIndex | None = None,
    ) -> "FilterSet":
        """Read a file from `save`, or one of the authors' files, which have no header.

        Parameters
        ----------
        path : path-like
            The file.
        total : int, optional
            Number F of filters of the network, for files whose header does not state it.
        filter_index : FilterIndex, optional
            Index of the network, for files that do not list its layers.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If a line repeats an index or holds none within range; the message gives its number. If
            the file belongs to another network than `filter_index`.
        """
        check_total(total)
        content = read_index_file(path, total)
        known = {name: content.header.get(name, "") for name in ("index", "baseline", "target")}
        listed = content.filter_index if filter_index is None else filter_index
        try:
            return cls(torch.tensor(content.indices), content.total, filter_index=listed, **known)
        except ValueError as problem:  # a header below the indices, or of other layers
            raise ValueError(f"{path}: {problem}") from None

    def _flat(self, layer: str, row: int, column: int) -> int:
        """Give the flat index of a filter; -1 if the network has no such filter."""
        index = self._known_index()
        if layer not in index.layers:
            return -1
        number = index.layers.index(layer)
        rows, columns = index.shapes[number][:2]
        inside = 0 <= row < rows and 0 <= column < columns
        return index.offsets[number] + row * columns + column if inside else -1

    def _known_index(self) -> FilterIndex:
        if self.filter_index is None:
            raise ValueError(
                "the set does not know the layers of its network; expected a set of a result, or "
                "FilterSet.load(path, filter_index=FilterIndex.of(network))"
            )
        return self.filter_index

    def _cut(self, part: slice) -> Tensor:
        places = range(len(self))[part]  # torch refuses negative steps
        return self.indices[torch.tensor(places, dtype=torch.int64)]

    def _combined(self, other: object, combine: Callable[[Tensor, Tensor], Tensor]) -> "FilterSet":
        if not isinstance(other, FilterSet):
            return NotImplemented
        known = common_network(self, other)
        return FilterSet(combine(self.indices, other.indices), **known)


def check_total(total: object) -> None:
    """Refuse a number of filters that is no positive integer."""
    if total is None:
        return
    expected = "expected the network's number of filters, or None"
    if isinstance(total, bool) or not isinstance(total, Integral):
        raise TypeError(f"total is {total!r}; {expected}")
    if total < 1:
        raise ValueError(f"total is {total!r}; {expected}")
