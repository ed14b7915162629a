"""Filters: the flat index of all k×k slices of a network, and sets of them."""

import hashlib
import itertools
import math
import operator
import os
import re
from bisect import bisect_right
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn

from faigfast.io.atomic import write_text
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import check_same_layout, copy_of, identity, tensors, undisturbed, unwrap

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
WEIGHTS = ("weight", _PARAMETRIZED, f"{_PARAMETRIZED}1", "weight_v", "weight_orig")


@dataclass(frozen=True)
class FilterIndex:
    """Numbers every filter of a network: one k×k slice of a convolution's weight.

    Flat index: convolution weights in state-dict order, row-major in their first two dimensions as
    stored. It is the authors' index.

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

        A weight that several layers share stands under its first key; a parametrized one under the
        tensor of its shape that is in the state dict (for weight norm the direction).
        """
        module = unwrap(model, "model")
        state = tensors(module)
        weights = set()
        layers = module.named_modules(remove_duplicate=False)
        convolutions = [(name, layer) for name, layer in layers if isinstance(layer, CONVOLUTIONS)]
        computed = any("weight" not in layer._parameters for _, layer in convolutions)
        with undisturbed(module) if computed else nullcontext():
            for name, layer in convolutions:
                keys = (f"{name}.{tail}".lstrip(".") for tail in WEIGHTS)
                shape = layer.weight.shape
                weights.add(next((k for k in keys if k in state and state[k].shape == shape), None))
        found: dict[str, tuple[int, ...]] = {}
        seen = set()
        for key, value in state.items():
            if key in weights and value.numel() and identity(value) not in seen:
                seen.add(identity(value))
                found[key] = tuple(value.shape)
        return cls(tuple(found), tuple(found.values()))

    def __len__(self) -> int:
        """Count the filters, F."""
        return self.offsets[-1]

    def locate(self, flat: int) -> tuple[str, int, int]:
        """State-dict key and first two indices of a filter, so that state[key][out, in] is it.

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

    @property
    def fingerprint(self) -> str:
        """Hash of all names and shapes, 16 hexadecimal digits."""
        text = ";".join(
            f"{layer} {'x'.join(map(str, shape))}"
            for layer, shape in zip(self.layers, self.shapes, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FilterSet:
    """Filters of one network, best first.

    Parameters
    ----------
    indices : Tensor
        [K], int64, flat indices without repetition.
    total : int, optional
        Number F of filters of the network; None where a file does not tell.
    index : str
        Fingerprint of the `FilterIndex`; empty where a file does not tell.
    baseline, target : str
        Fingerprints of the two networks; empty where unknown.

    Raises
    ------
    ValueError
        If the indices are not a list of different filters of the network.
    """

    indices: Tensor
    total: int | None = None
    index: str = ""
    baseline: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        """Check the indices once."""
        try:
            indices = torch.as_tensor(self.indices)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"indices are a {type(self.indices).__name__}; expected a list of integers"
            ) from None
        if indices.numel() == 0:
            raise ValueError("indices are empty; expected at least one filter")
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(
                f"indices are {list(indices.shape)} of {indices.dtype}; expected a list of integers"
            )
        indices = indices.to("cpu", torch.int64)
        top = math.inf if self.total is None else self.total
        if int(indices.min()) < 0 or int(indices.max()) >= top:
            raise ValueError(
                f"indices run from {int(indices.min())} to {int(indices.max())}; expected them "
                f"within 0 … {'F' if self.total is None else self.total} - 1"
            )
        if len(indices.unique()) != len(indices):
            raise ValueError("indices name a filter twice; expected each once")
        object.__setattr__(self, "indices", indices)

    def __repr__(self) -> str:
        first = ", ".join(map(str, self.indices[:5].tolist()))
        more = ", …" if len(self) > 5 else ""
        return f"FilterSet({len(self)} of {self.total or 'F'} filters: {first}{more})"

    def __len__(self) -> int:
        """Count the filters, K."""
        return len(self.indices)

    @property
    def digest(self) -> str:
        """Hash of the indices in any order, 16 hexadecimal digits."""
        indices = self.indices.sort().values
        return hashlib.sha256(indices.numpy().tobytes()).hexdigest()[:16]

    def __getitem__(self, part: slice) -> "FilterSet":
        """Take a part of the ranking, as in `ranking[:100]`."""
        if not isinstance(part, slice):
            raise TypeError(f"a set is cut by slices, not by {part!r}; its numbers are .indices")
        return FilterSet(self.indices[part], self.total, self.index, self.baseline, self.target)

    def swap(self, baseline: nn.Module, target: nn.Module, strength: float = 0.0) -> nn.Module:
        """Copy the target with these filters at baseline + strength·(target − baseline).

        Parameters
        ----------
        baseline, target : nn.Module
            The two networks, unchanged afterwards.
        strength : float
            0 masks the filters, 1 changes nothing, between modulates, above 1 extrapolates.

        Returns
        -------
        nn.Module
            A copy of the target, in the target's modes.

        Raises
        ------
        ValueError
            If the networks are given in the other order, are of another architecture than the set,
            or the strength is not finite.

        Examples
        --------
        >>> a, b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        >>> torch.equal(FilterSet(torch.tensor([4])).swap(a, b).weight[1, 1], a.weight[1, 1])
        True
        """
        if not isinstance(strength, Real):
            raise TypeError(f"strength is {strength!r}; expected a finite number")
        if not math.isfinite(strength):
            raise ValueError(f"strength is {strength!r}; expected a finite number")
        first, last = unwrap(baseline, "baseline"), unwrap(target, "target")
        check_same_layout(tensors(first), tensors(last))
        masks = self.masks(FilterIndex.of(last))
        if self.baseline and self.baseline != self.target:
            self._check_order(*fingerprints(first, last))
        edited = copy_of(last)
        vars(edited).pop("faigfast_source", None)  # it is no longer what the file holds
        start, end = tensors(first), tensors(edited)
        with torch.inference_mode(False), torch.no_grad():
            for layer, mask in masks.items():
                mask = mask.to(end[layer].device)
                changed = torch.lerp(start[layer].to(end[layer]), end[layer], float(strength))
                end[layer][mask] = changed[mask]
        return edited

    def masks(self, index: FilterIndex) -> dict[str, Tensor]:
        """Give where the filters are: bool masks over the first two dimensions of their layers.

        Parameters
        ----------
        index : FilterIndex
            Of the network.

        Returns
        -------
        dict of str to Tensor
            State-dict key to [O, I] (transposed convolutions: [I, O]), of layers that hold any.

        Raises
        ------
        ValueError
            If the filters are of another network.
        """
        if self.index and self.index != index.fingerprint:
            raise ValueError(
                f"the filters belong to the network {self.index} with {self.total} filters, not to "
                f"{index.fingerprint} with {len(index)}"
            )
        if int(self.indices.max()) >= len(index):
            raise ValueError(
                f"filter {int(self.indices.max())} does not exist in a network of {len(index)}"
            )
        if self.total not in (None, len(index)):
            raise ValueError(
                f"the filters are of a network with {self.total} filters, not of {len(index)}"
            )
        chosen = torch.zeros(len(index), dtype=torch.bool)
        chosen[self.indices] = True
        parts = zip(index.layers, index.shapes, index.offsets, index.offsets[1:], strict=False)
        masks = {layer: chosen[low:high].view(shape[:2]) for layer, shape, low, high in parts}
        return {layer: mask for layer, mask in masks.items() if mask.any()}

    def check_pair(self, baseline: nn.Module, target: nn.Module) -> None:
        """Refuse two networks other than those of which the filters were found.

        Parameters
        ----------
        baseline, target : nn.Module
            The two networks; a set that does not tell which they were goes with any of its
            architecture.

        Raises
        ------
        ValueError
            Naming both networks of the end that differs.
        """
        first, last = unwrap(baseline, "baseline"), unwrap(target, "target")
        check_same_layout(tensors(first), tensors(last))
        self.masks(FilterIndex.of(last))
        known = {"baseline": self.baseline, "target": self.target}
        if not any(known.values()):
            return
        own = fingerprints(first, last)
        if self.baseline != self.target:
            self._check_order(*own)
        for (end, wanted), found in zip(known.items(), own, strict=True):
            if wanted not in ("", found):
                raise ValueError(f"the filters' {end} is the network {wanted}, not {found}")

    def _check_order(self, baseline: str, target: str) -> None:
        """Refuse the fingerprints of two networks that are exchanged."""
        if target == self.baseline or baseline == self.target:
            raise ValueError(
                "baseline and target are in the other order than when the filters were found"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the authors' text format: one index a line, below a `#` header they skip."""
        header = {
            "filters": str(self.total) if self.total is not None else "",
            "index": self.index,
            "baseline": self.baseline,
            "target": self.target,
        }
        words = " ".join(f"{key}={value}" for key, value in header.items() if value)
        lines = [f"# faigfast {words}".rstrip(), *map(str, self.indices.tolist())]
        write_text(path, "\n".join(lines) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], total: int | None = None) -> "FilterSet":
        """Read a set from `save` or a file of the authors, which has no header.

        Parameters
        ----------
        path : path-like
            The file.
        total : int, optional
            Number F of filters of the network, for files whose header does not tell.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If a line is not a new index within range, naming the line.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file; expected filter indices, one a line")
        header = {} if total is None else {"filters": str(total)}
        lines: dict[int, int] = {}
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a text file of filter indices") from None
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if line.startswith("# faigfast"):
                header.update(re.findall(r"(filters|index|baseline|target)=(\S*)", line))
                if not re.fullmatch(r"\d{1,18}", header.get("filters", "0")):
                    raise ValueError(
                        f"{path}, line {number}: filters={header['filters'][:40]} in the header; "
                        "expected their number"
                    )
            elif line and not line.startswith("#"):
                most = int(header["filters"]) if "filters" in header else 2**63
                if not re.fullmatch(r"[0-9]{1,18}", line) or int(line) >= most:
                    raise ValueError(
                        f"{path}, line {number}: {line[:40]!r} is not a filter; expected an "
                        f"integer from 0 to {header.get('filters', 'F')} - 1"
                    )
                if int(line) in lines:
                    raise ValueError(
                        f"{path}, line {number}: filter {line} stands on line "
                        f"{lines[int(line)]} already"
                    )
                lines[int(line)] = number
        if not lines:
            raise ValueError(f"{path} holds no filter index")
        return cls(
            torch.tensor(list(lines)),
            int(header["filters"]) if "filters" in header else None,
            header.get("index", ""),
            header.get("baseline", ""),
            header.get("target", ""),
        )
