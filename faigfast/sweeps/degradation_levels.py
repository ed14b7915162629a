"""Degradations of a plan: recipes by name, one for each level."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from faigfast.data.degradations import Degradation
from faigfast.data.degradations.grammar import CLEAN, STEPS, split_named
from faigfast.io.nearest_name import hint, refuse_unknown

NAMES = r"[\w.+=:-]+"  # of degradations


@dataclass(frozen=True)
class Level:
    """A degradation at one level: by recipe, or from files.

    Parameters
    ----------
    name : str
        Such as "noise=0.1".
    degradation : Degradation, optional
        None: the degraded images are files.
    """

    name: str
    degradation: Degradation | None = None

    def identity(self, seed: int) -> dict[str, Any]:
        """Give all that the degraded images depend on, apart from the images."""
        if self.degradation is None:
            return {"files": self.name}
        return {"recipe": self.degradation.identity, "seed": seed}

    def __call__(self, gt: Tensor, sha256: str, seed: int) -> Tensor:
        """Degrade one image, [C, H, W] to [C, H/scale, W/scale].

        The seed follows from the plan's, the content of the image's file and the recipe, and from
        nothing else: other images and their order do not change it.
        """
        assert self.degradation is not None
        parts = repr((seed, sha256, self.degradation.identity)).encode()
        own_seed = int.from_bytes(hashlib.sha256(parts).digest()[:4], "big")
        return self.degradation(gt[None], own_seed)[0]


def degradation_levels(given: Any, scale: int | None, downsampling: str) -> list[Level]:
    """Read the degradations of a plan.

    Parameters
    ----------
    given : mapping or sequence
        As in `Plan`.
    scale : int, optional
        Down-sampling factor; None: not known yet.
    downsampling : str
        As in `Degradation`.

    Raises
    ------
    TypeError, ValueError
        If a recipe is of another form, or a name occurs twice.

    Examples
    --------
    >>> [level.name for level in degradation_levels({"blur": [1, 2], "jpeg": 40}, 2, "bilinear")]
    ['blur=1', 'blur=2', 'jpeg=40']
    """
    levels: dict[str, Level] = {}
    for name, recipe in _named_recipes(given):
        if not re.fullmatch(NAMES, name):
            raise ValueError(
                f"degradations have the name {name!r}; expected letters, digits, . + = : - _"
            )
        if name in levels:
            raise ValueError(f"degradations hold {name!r} twice; expected each once")
        own_scale = scale if scale is not None else getattr(recipe, "scale", 1)
        degradation = Degradation.of(recipe, own_scale, downsampling)
        if degradation.identity is None:
            raise ValueError(
                f"degradation {name!r} is {recipe!r}, which no later run could recognise; expected "
                "a recipe, or a function of a module"
            )
        levels[name] = Level(name, degradation)
    return list(levels.values())


def _named_recipes(given: Any) -> Iterator[tuple[str, str | Degradation | Callable]]:
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Mapping):
        if not isinstance(given, list | tuple):
            raise TypeError(
                f"degradations are a {type(given).__name__}; expected names with levels or recipes"
            )
        for item in given:
            if not isinstance(item, str):
                raise TypeError(f"degradations hold {item!r}; expected recipes such as 'blur=2'")
            name, recipe = split_named(item)
            yield (item if recipe == item else name), recipe
        return
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"degradations have the name {name!r}; expected text")
        if isinstance(value, Mapping):
            yield from _with_levels(name, value)
        elif isinstance(value, list | tuple) or _is_number(value):
            for level in value if isinstance(value, list | tuple) else [value]:
                yield _level(name, level)
        elif value is None and (name == CLEAN or name in STEPS):
            yield name, name
        else:
            yield name, value


def _level(name: str, level: Any) -> tuple[str, str]:
    """Give a level of a step, or a recipe among several under one name."""
    if isinstance(level, str) and ("=" in level or level == CLEAN):
        return f"{name}:{level}", level
    if not (_is_number(level) or isinstance(level, str)):
        raise TypeError(f"degradation {name!r} has the level {level!r}; expected a number")
    if name not in STEPS:
        raise ValueError(
            f"degradation {name!r} has levels, but no step is called so{hint(name, STEPS)}; "
            f"expected one of {', '.join(STEPS)}, or {{recipe: 'blur={{}}', levels: [1, 2]}}"
        )
    text = f"{name}={level:g}" if _is_number(level) else f"{name}={level}"
    return text, text


def _with_levels(name: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    refuse_unknown(f"degradation {name!r}", value, ("recipe", "levels"))
    recipe, levels = value.get("recipe"), value.get("levels")
    if not isinstance(recipe, str):
        raise ValueError(f"degradation {name!r} has the recipe {recipe!r}; expected text")
    if levels is None:
        yield name, recipe
        return
    if "{}" not in recipe:
        raise ValueError(f"degradation {name!r} has levels; expected {{}} in its recipe {recipe!r}")
    for level in levels if isinstance(levels, list | tuple) else [levels]:
        text = f"{level:g}" if _is_number(level) else str(level)
        yield f"{name}={text}", recipe.replace("{}", text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
