"""Pairs of a plan: checkpoints, snapshots of trainings and networks in memory."""

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from faigfast.filters.index import FilterIndex
from faigfast.io.nearest_name import refuse_unknown
from faigfast.io.own_function import own_function
from faigfast.models.fingerprint import fingerprints
from faigfast.models.output_shape import OutputShapes, image_channels
from faigfast.models.state import check_same_layout, tensors, unwrap
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.plan import Plan
from faigfast.zoo.checkpoints import NCNN_SUFFIX, TORCH_SUFFIXES, load_pair

SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", NCNN_SUFFIX)
SIDE = 16  # of the image that shows the enlargement where a network takes no large one


@dataclass(frozen=True)
class PairSource:
    """Where a baseline and a target come from, which a worker loads them from.

    Parameters
    ----------
    name : str
        Of the pair.
    places : tuple of str
        Two checkpoints; empty for networks in memory.
    key, dtype, into, into_kwargs
        As in `Plan`.
    content : bytes
        The pickled networks in memory.
    """

    name: str
    places: tuple[str, ...] = ()
    key: Any = None
    dtype: str | None = None
    into: str | None = None
    into_kwargs: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = field(default=b"", repr=False)

    def load(self) -> tuple[nn.Module, nn.Module]:
        """Load the baseline and the target.

        Raises
        ------
        FileNotFoundError, ValueError, ImportError
            As `faigfast.load_pair`; or if networks in memory cannot be rebuilt here.
        """
        if self.content:
            try:
                return pickle.loads(self.content)
            except (AttributeError, ImportError) as problem:
                raise ImportError(
                    f"the networks of pair {self.name!r} cannot be rebuilt in a worker: {problem}; "
                    "expected classes of a module that can be imported, or checkpoints"
                ) from None
        into = own_function("into", self.into)(**self.into_kwargs) if self.into else None
        key = tuple(self.key) if isinstance(self.key, list) else self.key
        return load_pair(self.places[0], self.places[1], into, key=key, dtype=self.dtype)


@dataclass(frozen=True)
class Pair:
    """A pair with what a sweep must know of it before the first unit.

    Parameters
    ----------
    source : PairSource
        Where it comes from.
    prints : tuple of str
        Fingerprints of baseline and target.
    index : FilterIndex
        Its filters.
    scale, channels : int
        Enlargement, and channels of an image.
    """

    source: PairSource
    prints: tuple[str, str]
    index: FilterIndex
    scale: int
    channels: int

    @property
    def name(self) -> str:
        """Name in the plan."""
        return self.source.name

    @property
    def identity(self) -> str:
        """Hash of both networks' weights."""
        return hashlib.sha256(" ".join(self.prints).encode()).hexdigest()


def list_pairs(plan: Plan, cache: FileCache) -> list[Pair]:
    """Read every pair of a plan once, and check it.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, ImportError
        As `faigfast.load_pair`, with the name of the pair; also if two pairs have one name, their
        images have different channels or their networks enlarge by different factors.
    """
    pairs: dict[str, Pair] = {}
    for source in _sources(plan):
        if source.name in pairs:
            raise ValueError(f"pairs hold {source.name!r} twice; expected each once")
        pairs[source.name] = _read(source, cache)
    if not pairs:
        raise ValueError("pairs of the plan are empty; expected at least one pair")
    first = next(iter(pairs.values()))
    for pair in pairs.values():
        for what in ("scale", "channels"):
            one, other = getattr(first, what), getattr(pair, what)
            if one != other and not (what == "scale" and plan.scale is not None):
                raise ValueError(
                    f"pairs {first.name!r} and {pair.name!r} have the {what} {one} and {other}, so "
                    "that no image fits both; expected a plan for each"
                )
    return list(pairs.values())


def _read(source: PairSource, cache: FileCache) -> Pair:
    def facts() -> dict[str, Any]:
        baseline, target = source.load()
        index = FilterIndex.of(target)
        if not len(index):
            raise ValueError("the networks have no convolution, so that there are no filters")
        channels = image_channels(target)
        scale = getattr(target, "scale", None)
        if not isinstance(scale, int):
            scale = OutputShapes(target).enlargement(channels, SIDE)
        return {
            "prints": fingerprints(baseline, target),
            "layers": index.layers,
            "shapes": index.shapes,
            "scale": scale,
            "channels": channels,
        }

    kind = json.dumps(["pair", source.key, source.dtype, source.into, dict(source.into_kwargs)])
    # ncnn keeps the weights in a file of their own; a factory's code may change at any time.
    plain = source.places and not source.into
    plain = plain and not any(place.lower().endswith(NCNN_SUFFIX) for place in source.places)
    try:
        known = cache.get(kind, list(source.places), facts) if plain else facts()
    except FileNotFoundError as problem:
        raise FileNotFoundError(f"pair {source.name!r}: {problem}") from None
    except (ValueError, TypeError, ImportError) as problem:
        raise type(problem)(f"pair {source.name!r}: {problem}") from problem
    index = FilterIndex(tuple(known["layers"]), tuple(tuple(s) for s in known["shapes"]))
    prints = (known["prints"][0], known["prints"][1])
    return Pair(source, prints, index, known["scale"], known["channels"])


def _sources(plan: Plan) -> Iterator[PairSource]:
    given = plan.pairs
    if isinstance(given, Mapping):
        entries: list[tuple[str | None, Any]] = list(given.items())
    elif isinstance(given, list | tuple):
        is_pair = len(given) == 2 and not any(isinstance(g, Mapping | list | tuple) for g in given)
        entries = [(None, given)] if is_pair else [(None, entry) for entry in given]
    else:
        raise TypeError(f"pairs are a {type(given).__name__}; expected names with two checkpoints")
    shared = {
        "key": plan.key, "dtype": plan.dtype, "into": plan.into,
        "into_kwargs": dict(plan.into_kwargs),
    }  # fmt: skip
    for name, entry in entries:
        if isinstance(entry, Mapping) and ("start" in entry or "snapshots" in entry):
            yield from _snapshots(name, entry, shared)
        elif isinstance(entry, Mapping):
            refuse_unknown(f"pair {name!r}", entry, ("baseline", "target", "key"))
            two = [entry.get("baseline"), entry.get("target")]
            yield _one(name, two, shared | {"key": entry.get("key", plan.key)})
        else:
            yield _one(name, entry, shared)


def _one(name: str | None, two: Any, shared: Mapping[str, Any]) -> PairSource:
    if not isinstance(two, list | tuple) or len(two) != 2 or None in two:
        raise ValueError(
            f"pair {name!r} is {two!r}; expected [baseline, target], two checkpoints or networks"
        )
    if all(isinstance(one, nn.Module) for one in two):
        networks = unwrap(two[0], "baseline"), unwrap(two[1], "target")
        check_same_layout(tensors(networks[0]), tensors(networks[1]))
        try:
            content = pickle.dumps(networks)
        except (pickle.PicklingError, AttributeError, TypeError) as problem:
            raise TypeError(
                f"the networks of pair {name!r} cannot be sent to workers: {problem}; expected "
                "classes of a module, or checkpoints"
            ) from None
        return PairSource(name or type(networks[1]).__name__, content=content)
    if not all(isinstance(one, str | Path) for one in two):
        raise TypeError(f"pair {name!r} is {two!r}; expected two checkpoints or two networks")
    return PairSource(name or Path(two[1]).stem, (str(two[0]), str(two[1])), **shared)


def _snapshots(
    name: str | None, entry: Mapping[str, Any], shared: Mapping[str, Any]
) -> Iterator[PairSource]:
    """Pair every snapshot of a training with its start."""
    refuse_unknown(f"pair {name!r}", entry, ("start", "snapshots", "key"))
    start, snapshots = entry.get("start"), entry.get("snapshots")
    if start is None or not snapshots:
        raise ValueError(f"pair {name!r} is {dict(entry)!r}; expected 'start' and 'snapshots'")
    if isinstance(snapshots, str | Path):
        folder = Path(snapshots)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of snapshots {folder}")
        snapshots = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and path.resolve() != Path(start).resolve()
        )
        if not snapshots:
            raise ValueError(f"{folder} has no snapshot; expected some of {', '.join(SUFFIXES)}")
    shared = {**shared, "key": entry.get("key", shared["key"])}
    for snapshot in snapshots:
        stem = Path(snapshot).stem
        yield _one(f"{name}/{stem}" if name else stem, [start, snapshot], shared)
