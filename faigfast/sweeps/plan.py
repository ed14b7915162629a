"""Plan: the grid of a sweep, as a Python object."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from faigfast.data.images import check_reading
from faigfast.io.nearest_name import refuse_unknown
from faigfast.sweeps.degradation_levels import Level, degradation_levels
from faigfast.sweeps.method_settings import MethodSettings, method_settings

PathLike = str | os.PathLike[str]
POSITIVE = ("shard", "crop_to")


@dataclass(frozen=True)
class Plan:
    """The grid of a sweep: pairs × degradations and their levels × settings × images.

    Parameters
    ----------
    pairs : mapping or sequence
        Pair name to `[baseline, target]`, two checkpoints or two networks; or to
        `{"start": checkpoint, "snapshots": folder or list}`, where each snapshot of a training is a
        target and its start the baseline. A sequence names the pairs after their targets.
    images : path or sequence of paths and mappings
        Folders of ground truths, or manifests: CSV or Parquet files with a column `file` (or `gt`),
        and for degraded images that are files `lq` or `lq NAME`. A mapping
        `{"gt": folder, "lq": folder}`, or with `{"lq": {name: folder}}`, pairs folders by file
        name. URLs of fsspec, such as s3://bucket/photos, are read where fsspec is installed.
    degradations : mapping or sequence
        Name of a step to its levels, `{"noise": [0.05, 0.1]}`; any name to a recipe,
        `{"phone": "blur=1+jpeg=40"}`, or to `{"recipe": "blur={}+noise=0.1", "levels": [1, 2]}`. A
        sequence holds recipes, with a name in front or not. Empty where degraded images are files.
    settings : mapping or sequence
        Keyword arguments of `faigfast.attribute` for each setting, by name or in a sequence, with
        `method`, `device` and the resources of a worker, `cpus` and `gpus`, beside them. Methods
        that look at the weights alone (change, relative, random, magnitude) take `parameters` and,
        for random, `seed`.
    shard : int
        Most images of one unit of work; they have one size.
    scale : int, optional
        Enlargement; by default that of the networks.
    downsampling : {"bilinear", "bicubic"}
        Of recipes.
    seed : int
        Random numbers of a recipe follow from it, the content of the image and the recipe.
    recursive, alpha, crop_to
        Of the images, as in `faigfast.data.PairedFolders`.
    key, dtype
        Of the checkpoints, as in `faigfast.load_pair`.
    into : str, optional
        Your own architecture, "module:factory", which `into_kwargs` are passed to.
    into_kwargs : mapping
        Arguments of the factory.

    Raises
    ------
    TypeError, ValueError
        If an entry is empty, of the wrong kind or out of range, or holds an unknown name.

    Examples
    --------
    >>> plan = Plan({"mine": ["a.pth", "b.pth"]}, "photos", {"noise": [0.05, 0.1]})
    >>> [level.name for level in plan.levels]
    ['noise=0.05', 'noise=0.1']
    """

    pairs: Any
    images: Any
    degradations: Any = field(default_factory=dict)
    settings: Any = ({},)
    shard: int = 16
    scale: int | None = None
    downsampling: str = "bilinear"
    seed: int = 0
    recursive: bool = False
    alpha: str = "refuse"
    crop_to: int = 1
    key: Any = None
    dtype: str | None = None
    into: str | None = None
    into_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every entry that needs no file."""
        for name in POSITIVE:
            _check_integer(name, getattr(self, name), 1)
        _check_integer("seed", self.seed, 0)
        if self.scale is not None:
            _check_integer("scale", self.scale, 1)
        check_reading(3, self.alpha)
        if not isinstance(self.recursive, bool):
            raise TypeError(f"recursive is {self.recursive!r}; expected true or false")
        for name in ("pairs", "images", "settings"):
            if _is_empty(getattr(self, name)):
                raise ValueError(
                    f"{name} of the plan are empty, so that there is nothing to compute; expected "
                    "at least one entry"
                )
        self.chosen_settings()
        _ = self.levels

    @classmethod
    def of(cls, plan: "Plan | Mapping[str, Any] | PathLike") -> "Plan":
        """Make a plan of a mapping or of a YAML file; leave a plan as it is.

        Raises
        ------
        TypeError
            If it is something else.
        ValueError
            If the file is no YAML, or as the constructor.
        FileNotFoundError
            If there is no such file.
        ImportError
            If jsonargparse, which reads YAML, is not installed.
        """
        if isinstance(plan, Plan):
            return plan
        if isinstance(plan, str | os.PathLike):
            from faigfast.sweeps.plan_file import read_plan

            plan = read_plan(plan)
        if not isinstance(plan, Mapping):
            raise TypeError(
                f"plan is a {type(plan).__name__}; expected a Plan, a mapping or a YAML file"
            )
        refuse_unknown("the plan", plan, NAMES)
        for name in ("pairs", "images"):
            if name not in plan:
                raise ValueError(f"the plan has no {name}; expected pairs and images")
        return cls(**plan)

    @property
    def levels(self) -> list[Level]:
        """Degradations by recipe, one for each level."""
        return degradation_levels(self.degradations, self.scale, self.downsampling)

    def chosen_settings(self) -> list[MethodSettings]:
        """Check and name the settings of the plan."""
        return method_settings(self.settings)


NAMES = tuple(entry.name for entry in fields(Plan))


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer from {least} up")


def _is_empty(value: Any) -> bool:
    if value is None or value == "":
        return True
    return isinstance(value, Mapping | Sequence) and not len(value)


def listed(value: Any) -> list[Any]:
    """Give the entries of a sequence; one entry for a path or a mapping."""
    if isinstance(value, str | os.PathLike | Mapping) or not isinstance(value, Iterable):
        return [value]
    return list(value)
