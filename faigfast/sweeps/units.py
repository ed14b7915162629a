"""Units of work: a pair, a degradation, a setting and a shard of images of one size.

A unit of a method that looks at the weights alone has no degradation and no images.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from faigfast.sweeps.catalogue import Catalogue, identity_of, identity_of_shard
from faigfast.sweeps.degradation_levels import Level
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.image_list import ImageFile, ImageList, list_images
from faigfast.sweeps.method_settings import MethodSettings
from faigfast.sweeps.pair_list import Pair, list_pairs
from faigfast.sweeps.plan import Plan
from faigfast.sweeps.worker import Task
from faigfast.version import __version__


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit, by the numbers of its parts in the catalogue.

    Parameters
    ----------
    key : bytes
        SHA-256 over the identities of the parts.
    pair, degradation, setting, shard : int
        Numbers in the catalogue.
    """

    key: bytes
    pair: int
    degradation: int
    setting: int
    shard: int

    @property
    def id(self) -> str:
        """The key in hexadecimal digits, which names the file of the unit."""
        return self.key.hex()


class Grid:
    """A plan with its files read: every unit, in an order that lets workers reuse their networks.

    Parameters
    ----------
    plan : Plan
        The plan.
    catalogue : Catalogue
        Gets the parts of the grid; `Catalogue.save` writes them.
    cache : FileCache
        Facts of files.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, ImportError
        If a part of the plan cannot be used; before any unit is computed.
    """

    def __init__(self, plan: Plan, catalogue: Catalogue, cache: FileCache) -> None:
        self.plan, self.catalogue = plan, catalogue
        pairs = list_pairs(plan, cache)
        self.scale = plan.scale if plan.scale is not None else pairs[0].scale
        self.channels = pairs[0].channels
        if plan.scale is None:  # recipes need the scale
            plan = Plan(**{**vars(plan), "scale": self.scale})
        self.listed: ImageList = list_images(plan, self.scale, cache)
        self.images = {image.identity: image for image in self.listed.images}
        levels = {level.name: level for level in plan.levels}
        for image in self.listed.images:
            for name in image.lq_names:
                if name in levels and levels[name].degradation is not None:
                    raise ValueError(
                        f"degradation {name!r} is a recipe and a folder or column of images; "
                        "expected another name for one of them"
                    )
                levels.setdefault(name, Level(name))
        if not levels:
            raise ValueError(
                "degradations of the plan are empty and no degraded images are files, so that "
                "there is nothing to compute; expected recipes such as {noise: [0.05, 0.1]}, or "
                "images with 'lq'"
            )
        self.pairs = {self._add_pair(pair): pair for pair in pairs}
        self.degradations = {self._add_level(level): level for level in levels.values()}
        self.settings = {self._add_setting(one): one for one in plan.chosen_settings()}
        self._refuse_copies("pairs", len(pairs), self.pairs)
        self._refuse_copies("settings", len(plan.chosen_settings()), self.settings)
        self.shards = self._shards()
        # Units of weight methods have neither a degradation nor images, so that one serves all.
        self._no_degradation = catalogue.add("degradation", identity_of(""), {"name": ""})
        nothing: dict[str, Any] = {"images": [], "names": [], "size": [], "lq": []}
        self._no_images = self._add_shard(identity_of_shard(nothing), nothing)
        self._by_weights = [n for n, one in self.settings.items() if one.by_weights]
        self._by_images = [n for n, one in self.settings.items() if not one.by_weights]

    def __len__(self) -> int:
        """Count the units, without regard to splits."""
        per_setting = sum(len(self.degradations_of(shard)) for shard in self.shards)
        per_pair = per_setting * len(self._by_images) + len(self._by_weights)
        return per_pair * len(self.pairs)

    def units(self) -> Iterator[Unit]:
        """Give every unit of the grid, pair by pair."""
        for pair in self.pairs:
            for setting in self._by_weights:
                yield self.unit(pair, self._no_degradation, setting, self._no_images)
            for shard in self.shards:
                for degradation in self.degradations_of(shard):
                    for setting in self._by_images:
                        yield self.unit(pair, degradation, setting, shard)

    def leaves(self, unit: Unit, is_split: Callable[[Unit], bool]) -> Iterator[Unit]:
        """Give a unit, or the units of fewer images that it was split into."""
        if not is_split(unit):
            yield unit
            return
        for child in self.split(unit):
            yield from self.leaves(child, is_split)

    def split(self, unit: Unit) -> list[Unit]:
        """Give two units with half of the images each; [] for a unit of one image."""
        return [
            self.unit(unit.pair, unit.degradation, unit.setting, self._add_shard(*half))
            for half in self.catalogue.halves(unit.shard)
        ]

    def unit(self, pair: int, degradation: int, setting: int, shard: int) -> Unit:
        """Make the unit of four numbers in the catalogue."""
        numbers = {"pair": pair, "degradation": degradation, "setting": setting, "shard": shard}
        identities = [self.catalogue.identity(kind, n) for kind, n in numbers.items()]
        return Unit(hashlib.sha256(" ".join(identities).encode()).digest(), **numbers)

    def degradations_of(self, shard: int) -> list[int]:
        """Give the degradations that the images of a shard have."""
        from_files = self.catalogue.entry("shard", shard)["lq"]
        return [
            number
            for number, level in self.degradations.items()
            if level.degradation is not None or level.name in from_files
        ]

    def images_of(self, shard: int) -> list[ImageFile]:
        """Give the images of a shard."""
        return [self.images[key] for key in self.catalogue.entry("shard", shard)["images"]]

    def task(self, unit: Unit) -> Task:
        """Describe a unit for a worker."""
        level = self.degradations.get(unit.degradation, Level(""))
        setting = self.settings[unit.setting]
        return Task(
            unit=unit.id,
            pair=unit.pair,
            setting=setting,
            level=level,
            images=tuple(self.images_of(unit.shard)),
            seed=self.plan.seed,
            scale=self.scale,
            channels=self.channels,
            alpha=self.plan.alpha,
            names={
                "pair": self.pairs[unit.pair].name,
                "degradation": level.name,
                "setting": setting.name,
            },
        )

    def description(self) -> dict[str, Any]:
        """Describe the grid in JSON types, for readers of the sweep."""
        return {
            "pairs": list(self.pairs),
            "degradations": [*self.degradations, self._no_degradation],
            "settings": list(self.settings),
            "shards": [*self.shards, self._no_images],
            "units": len(self),
            "images": len(self.images),
            "refused": self.listed.refused,
        }

    @staticmethod
    def _refuse_copies(what: str, given: int, kept: Mapping[int, Any]) -> None:
        if len(kept) < given:
            names = ", ".join(repr(one.name) for one in kept.values())
            raise ValueError(
                f"{given} {what} are given and only {names} differ in content; expected each once"
            )

    def _add_pair(self, pair: Pair) -> int:
        content = {
            "name": pair.name,
            "places": pair.source.places,
            "fingerprints": pair.prints,
            "layers": pair.index.layers,
            "shapes": pair.index.shapes,
        }
        return self.catalogue.add("pair", pair.identity, content)

    def _add_level(self, level: Level) -> int:
        plan = self.plan
        identity = {
            **level.identity(plan.seed),
            "reading": [self.channels, plan.alpha, plan.crop_to, self.scale],
        }
        content = {"name": level.name, **identity}
        return self.catalogue.add("degradation", identity_of(identity), content)

    def _add_setting(self, one: MethodSettings) -> int:
        identity = {**one.identity, "versions": [__version__, torch.__version__]}
        return self.catalogue.add("setting", identity_of(identity), {"name": one.name, **identity})

    def _add_shard(self, identity: str, content: dict[str, Any]) -> int:
        known = self.catalogue.number("shard", identity)
        return self.catalogue.add("shard", identity, content) if known is None else known

    def _shards(self) -> list[int]:
        """Give the shards of all images: the ones of earlier plans, then new ones.

        Images that are added later never change the shards of the others, nor their results.
        """
        left = dict(self.images)
        shards = []
        for number, content in enumerate(self.catalogue.entries("shard")):
            images = content["images"]
            if images and all(
                key in left
                and list(left[key].size) == content["size"]
                and sorted(left[key].lq_names) == content["lq"]
                for key in images
            ):
                shards.append(number)
                for key in images:
                    del left[key]
        groups: dict[Any, list[str]] = {}
        for key, image in left.items():
            groups.setdefault((image.size, tuple(sorted(image.lq_names))), []).append(key)
        for (size, lq), keys in groups.items():
            for start in range(0, len(keys), self.plan.shard):
                part = keys[start : start + self.plan.shard]
                names = [self.images[key].name for key in part]
                content = {"images": part, "names": names, "size": [*size], "lq": [*lq]}
                shards.append(self._add_shard(identity_of_shard(content), content))
        return shards
