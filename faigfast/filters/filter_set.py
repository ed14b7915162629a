"""FilterSet: filters of one network, best first; to swap, compare with networks and save."""

import hashlib
import math
import os
import re
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import complete_biases
from faigfast.io.atomic import checked_path, write_text
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import check_same_layout, copy_of, tensors, unwrap

MOST_BYTES = 2**28  # of a file of indices: some 25 million filters


@dataclass(frozen=True, eq=False)
class FilterSet:
    """Filters of one network, best first.

    Parameters
    ----------
    indices : Tensor
        [K], int64, flat indices without repetition.
    total : int, optional
        Number F of filters of the network; None if the file does not state it.
    index : str
        Fingerprint of the `FilterIndex`; empty if the file does not state it.
    baseline, target : str
        Fingerprints of the two networks; empty if unknown.

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
        """Check the indices, and store them as int64 on the CPU."""
        check_total(self.total)
        try:
            indices = torch.as_tensor(self.indices)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(
                f"indices are a {type(self.indices).__name__}; expected a list of integers"
            ) from None
        if indices.is_meta or indices.is_nested or indices.layout != torch.strided:
            kind = "meta" if indices.is_meta else "nested" if indices.is_nested else "sparse"
            raise TypeError(f"indices are a {kind} tensor; expected a list of integers")
        if indices.numel() == 0:
            raise ValueError("indices are empty; expected at least one filter")
        whole = not (indices.is_floating_point() or indices.is_complex())
        if indices.ndim != 1 or not whole or indices.dtype == torch.bool:
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
        """Give a slice of the ranking, such as `ranking[:100]`."""
        if not isinstance(part, slice):
            raise TypeError(f"a set is cut by slices, not by {part!r}; its numbers are .indices")
        return FilterSet(self.indices[part], self.total, self.index, self.baseline, self.target)

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
        if not isinstance(strength, Real):
            raise TypeError(f"strength is {strength!r}; expected a finite number")
        try:
            strength = float(strength)
        except OverflowError:
            raise ValueError(
                "strength is an integer beyond float64; expected a finite number"
            ) from None
        if not math.isfinite(strength):
            raise ValueError(f"strength is {strength!r}; expected a finite number")
        if not isinstance(biases, bool):
            raise TypeError(f"biases is {biases!r}; expected True or False")
        baseline, target = _checked_pair(baseline, target)
        index = FilterIndex.of(target)
        masks = self.masks(index)
        if biases:
            masks |= complete_biases(target, index, masks)
        if self.baseline and self.baseline != self.target:
            self._check_order(*fingerprints(baseline, target))
        edited = copy_of(target)
        vars(edited).pop("faigfast_source", None)  # the copy differs from the checkpoint
        start, end = tensors(baseline), tensors(edited)
        with torch.inference_mode(False), torch.no_grad():
            for key, mask in masks.items():
                mask = mask.to(end[key].device)
                changed = start[key].to(end[key])
                if strength != 0:  # at 0, lerp makes 0 of -0
                    changed = torch.lerp(changed, end[key], strength)
                end[key][mask] = changed[mask]
        return edited

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
        baseline, target = _checked_pair(baseline, target)
        self.masks(FilterIndex.of(target))
        known = {"baseline": self.baseline, "target": self.target}
        if not any(known.values()):
            return
        own = fingerprints(baseline, target)
        if self.baseline != self.target:
            self._check_order(*own)
        for (role, expected), given in zip(known.items(), own, strict=True):
            if expected not in ("", given):
                raise ValueError(f"the filters' {role} is the network {expected}, not {given}")

    def _check_order(self, baseline: str, target: str) -> None:
        """Refuse baseline and target in exchanged order, by their fingerprints."""
        if target == self.baseline or baseline == self.target:
            raise ValueError(
                "baseline and target are in the other order than when the filters were found"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the authors' text format: one index a line, below a `#` header that they skip."""
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
        """Read a file from `save`, or one of the authors' files, which have no header.

        Parameters
        ----------
        path : path-like
            The file.
        total : int, optional
            Number F of filters of the network, for files whose header does not state it.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If a line repeats an index or holds none within range; the message gives its number.
        """
        check_total(total)
        path = checked_path(path)
        if not os.path.isfile(path):  # unlike Path.is_file, takes names of any length
            raise FileNotFoundError(f"{path} is not a file; expected filter indices, one a line")
        header = {} if total is None else {"filters": str(total)}
        lines: dict[int, int] = {}
        text = _read_text(path)
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
        try:
            return cls(
                torch.tensor(list(lines)),
                int(header["filters"]) if "filters" in header else None,
                header.get("index", ""),
                header.get("baseline", ""),
                header.get("target", ""),
            )
        except ValueError as problem:  # a header below the indices
            raise ValueError(f"{path}: {problem}") from None


def check_total(total: Any) -> None:
    """Refuse a number of filters that is no positive integer."""
    if total is None:
        return
    expected = "expected the network's number of filters, or None"
    if isinstance(total, bool) or not isinstance(total, Integral):
        raise TypeError(f"total is {total!r}; {expected}")
    if total < 1:
        raise ValueError(f"total is {total!r}; {expected}")


def _checked_pair(baseline: nn.Module, target: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Take both modules out of their wrappers; refuse meta tensors and other layouts."""
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    for role, module in (("baseline", baseline), ("target", target)):
        for key, value in tensors(module).items():
            if value.is_meta:
                raise ValueError(
                    f"{role} holds {key!r} on the device meta, without values; expected a network "
                    "with values"
                )
    check_same_layout(tensors(baseline), tensors(target))
    return baseline, target


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(
                f"{path} has {size} bytes; expected filter indices of at most {MOST_BYTES} bytes"
            )
        return path.read_text()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file of filter indices") from None
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror or problem}") from None
