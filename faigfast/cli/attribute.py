"""`faigfast attribute`: two checkpoints and images in; ranked filters and their manifest out."""

import datetime
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn
from tqdm import tqdm

import faigfast
from faigfast.analysis.baselines import METHODS, OF_WEIGHTS, rank_by
from faigfast.analysis.contrasts import NAMES
from faigfast.analysis.report.tables import completeness_table
from faigfast.backend.catalogue import choose
from faigfast.backend.gpu.devices import Devices, Run, known_devices
from faigfast.backend.precision import PRECISIONS, check_precision
from faigfast.cli.output import command_line, note, sha256, writable_folder
from faigfast.cli.reading import Group, Images, group_by_size, hash_images, read_ahead
from faigfast.cli.run_folder import SCORES, TABLE, RunFolder, alone_in
from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.integration.batch import Batch
from faigfast.integration.objective import resolve_objective
from faigfast.integration.refinement import schedule
from faigfast.io.atomic import atomic_write
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.text_table import aligned, counted
from faigfast.result import Attribution

ROLES = ("baseline", "target")
LAYERS_SHOWN = 3
# Options that `attribute()` takes as they are, and on which its numbers depend.
SETTINGS = ("rule", "steps", "tol", "emulate", "objective", "parameters", "backend", "precision")
# Options on which the degraded images depend.
IMAGES = ("scale", "downsampling", "seed")
OWN = ("into", "into_kwargs")


def run(options: Any, words: Sequence[str]) -> None:
    """Attribute every image of a folder, then write and print what follows."""
    devices = _check(options)
    into = own_network(options.into, options.into_kwargs) if options.into else None
    pair = faigfast.load_pair(options.baseline, options.target, into)
    images, origins = open_images(options, pair[1])
    # Collected first, so that nothing can fail here after hours.
    versions = {**describe_versions(), "numpy": numpy.__version__}
    manifest: dict[str, Any] = {
        "command": command_line(words),
        "checkpoints": {
            role: {"path": options[role], "entry": str(net.faigfast_source)}
            for role, net in zip(ROLES, pair, strict=True)
        },
        "folders": {"gt": options.gt, **(origins if options.lq else {})},
        "versions": versions,
        "machine": describe_machine(),
    }
    made_from = {
        **{role: sha256(Path(options[role])) for role in ROLES},
        # Of folders the content counts, not the path: the run's folder hashes the images.
        "degradations": {k: v if options.degrade else "folder" for k, v in origins.items()},
        **{name: options[name] for name in (*SETTINGS, *IMAGES, *OWN)},
        **({"device": devices[0].type} if devices and devices[0].type != "cpu" else {}),
        # Folders from before there were rivals are of FAIG.
        **({} if options.method == "faig" else {"method": options.method}),
        "faigfast": versions["faigfast"],
        "torch": versions["torch"],
    }
    path = writable_folder(options.output)
    with alone_in(path):
        hashes = partial(hash_images, images, options.quiet)
        folder = RunFolder(path, made_from, images.names, hashes, options.overwrite)
        for text in images.notes:
            note(text, options.quiet)
        if folder.manifest:
            note(f"{folder.path} holds this run already; nothing is computed again", options.quiet)
            result = Attribution.load(folder.path / SCORES)
            manifest |= {key: folder.manifest[key] for key in ("machine", "time")}
        else:
            result, manifest["time"] = _compute(pair, images, folder, options, devices)
        notes = [*images.notes, *result.notes]
        files = _write(folder.path, result, options.top, notes)
        manifest |= {
            "used": {
                "backend": result.backend,
                "precision": result.precision,
                "scale": images.scale,
                "points_per_image": result.evaluations,
            },
            "images": _by_image(result, images.names),
            "notes": notes,
            "files": files,
        }
        folder.finish(manifest)
        print(_summary(result, pair, options.top))
        for text in notes[len(images.notes) :]:
            note(text, options.quiet)
        print(f"wrote {', '.join([*files, 'manifest.json'])} in {folder.path}")


def _check(options: Any) -> list[torch.device]:
    """Refuse what can be refused before images are opened and the folder is made.

    Returns
    -------
    list of torch.device
        Those that are asked for; empty where the networks stay where they are.
    """
    for fraction in options.top:
        if not 0 < fraction <= 1:
            raise ValueError(f"top is {fraction}; expected fractions in (0, 1]")
    if options.method not in METHODS:
        raise ValueError(f"method is {options.method!r}; expected one of {', '.join(METHODS)}")
    schedule(options.rule, options.steps, options.tol, options.emulate)
    resolve_objective(options.objective)
    check_precision(options.precision)
    asked = options.devices
    devices = known_devices("all" if asked == ["all"] else asked) if asked else []
    for device in devices or [torch.device("cpu")]:
        choose(options.backend, device, options.precision)
    return devices


def own_network(place: str, arguments: dict[str, Any]) -> nn.Module:
    """Build the user's architecture from "module:factory"."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    name, _, factory = place.partition(":")
    try:
        build = getattr(import_module(name), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(
            f"into is {place!r}: {error}; expected MODULE:FACTORY, importable from here"
        ) from error
    return build(**arguments)


def open_images(options: Any, network: nn.Module) -> tuple[Images, dict[str, str]]:
    """Make the data set, and say where each degradation comes from: its folder or recipe."""
    if bool(options.lq) == bool(options.degrade):
        found = "both" if options.lq else "neither"
        raise ValueError(f"{found} of --lq and --degrade given; expected one of them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same stands in `notes`
        if options.lq:
            folders = _named("lq", (_split(item) for item in options.lq))
            return PairedFolders(options.gt, folders, options.scale), folders
        scale = options.scale if options.scale is not None else getattr(network, "scale", None)
        if not isinstance(scale, int):
            raise ValueError("scale is not given and the network does not tell it; add --scale")
        recipes = named_recipes(options.degrade)
        degradations = {
            name: Degradation.parse(recipe, scale, options.downsampling)
            for name, recipe in recipes.items()
        }
        return DegradedFolder(options.gt, degradations, options.seed), recipes


def named_recipes(items: Sequence[str]) -> dict[str, str]:
    """Read the recipes of --degrade by name."""
    return _named("degrade", map(_recipe, items))


def _split(item: str) -> tuple[str, str]:
    """Read NAME=VALUE; a VALUE alone is named "lq"."""
    name, equals, value = item.partition("=")
    return (name, value) if equals else ("lq", item)


def _recipe(item: str) -> tuple[str, str]:
    """Read NAME=RECIPE, or a RECIPE alone, which is named after what it holds."""
    name, _, recipe = item.partition("=")
    if recipe == "clean" or "=" in recipe.partition("+")[0]:
        return name, recipe
    return "+".join(part.partition("=")[0].strip() for part in item.split("+")), item


def _named(option: str, items: Iterable[tuple[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, value in items:
        if not re.fullmatch(NAMES, name):
            raise ValueError(f"{option} has the name {name!r}; expected letters, digits, . + - _")
        if name in named:
            raise ValueError(f"{option} names {name!r} twice; expected each once")
        named[name] = value
    return named


def _compute(
    pair: tuple[nn.Module, nn.Module],
    images: Images,
    folder: RunFolder,
    options: Any,
    devices: list[torch.device],
) -> tuple[Attribution, dict[str, Any]]:
    """Attribute the images that the folder does not hold yet; what took how long."""
    kept = [n for n in range(len(images)) if folder.part(n).exists()]
    if kept:
        note(f"going on: {len(kept)} of {len(images)} images are in {folder.parts}", options.quiet)
    given = {name: options[name] for name in SETTINGS} | {"memory": options.memory}
    if kept and devices:  # what was measured for the first image holds for all
        found = Attribution.load(folder.part(kept[0])).precision
        given["precision"] = found if found in PRECISIONS else options.precision
    started, start = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
    groups = _missing(images, set(kept), options, devices)
    order = [n for group in groups for n in group]
    reading = read_ahead(images, groups, next(pair[1].parameters()).dtype)
    parts = _batches(reading, folder)
    faig = options.method == "faig"
    rank: Run = faigfast.attribute if faig else partial(rank_by, options.method, seed=options.seed)
    if devices and groups:
        results = _on_devices(Devices(devices, *pair, rank, given), parts)
    else:
        given["progress"] = not options.quiet
        run = faigfast.Attributor(*pair, **given) if faig else partial(rank, *pair, **given)
        results = (run(_mapping(part)) for part in parts)
    shown = {"desc": "images", "unit": "image", "disable": options.quiet}
    done = 0
    with (
        _telling_progress(folder, len(images)),
        closing(reading),
        closing(results),
        tqdm(total=len(images), initial=len(kept), **shown) as bar,
    ):
        try:
            for result in results:
                own = order[done : done + result.images]
                folder.keep(own, result)
                done += len(own)
                bar.update(len(own))
        except ValueError as error:
            # A call counts the images of its group, devices those of all; here they have names.
            text = re.search(r", image (\d+):", str(error))
            if text is None:
                raise
            position = order[int(text[1]) + (0 if devices else done)]
            name = f", image {images.names[position]!r}:"
            raise ValueError(str(error).replace(text[0], name, 1)) from error
    first_one, *others = (Attribution.load(folder.part(n)) for n in range(len(images)))
    return first_one.merge(others), {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 3),
        "images_computed": len(order),
        "images_kept_from_an_interrupted_run": len(kept),
    }


def _missing(
    images: Images, kept: set[int], options: Any, devices: Sequence[torch.device]
) -> list[list[int]]:
    """Group the images that are to be computed; groups are the same whatever is kept."""
    if options.method in OF_WEIGHTS:  # their results are of one image, whatever they are given
        return [[n] for n in range(len(images)) if n not in kept]
    sizes = [(h // images.scale, w // images.scale) for h, w in images.sizes.values()]
    groups = group_by_size(sizes, len(options.lq or options.degrade), max(1, len(devices)))
    missing = ([n for n in group if n not in kept] for group in groups)
    return [group for group in missing if group]


def _batches(groups: Iterable[Group], folder: RunFolder) -> Iterator[Batch]:
    """Give the tensors of groups, and their hashes to the folder."""
    for group in groups:
        folder.hashes |= group.hashes
        yield group.batch


def _mapping(part: Batch) -> dict[str, Any]:
    """Give a batch whose degradations share their ground truth as `attribute` takes it."""
    return {"lq": part.lq, "gt": next(iter(part.gt.values()))}


def _on_devices(pool: Devices, parts: Iterable[Batch]) -> Generator[Attribution, None, None]:
    with pool:
        yield from pool.map(parts)


@contextmanager
def _telling_progress(folder: RunFolder, images: int) -> Iterator[None]:
    """Say in an interrupt how far the run has come."""
    try:
        yield
    except KeyboardInterrupt:
        done = sum(folder.part(n).exists() for n in range(images))
        raise KeyboardInterrupt(
            f"{done} of {counted(images, 'image')} finished; the same command goes on with the rest"
        ) from None


def _write(path: Path, result: Attribution, top: Sequence[float], notes: list[str]) -> list[str]:
    """Write all files but the manifest; their names."""
    result.save(path / SCORES)
    files = [SCORES]
    try:
        frame = result.to_frame()
    except ImportError as error:
        notes.append(f"no {TABLE}: {error}")
    else:
        with atomic_write(path / TABLE) as temporary:
            frame.to_csv(temporary, index=False)
        files.append(TABLE)
    for name in result.degradations:
        result.ranking(name).save(path / f"{name}_index.txt")
        files.append(f"{name}_index.txt")
        for share in top:
            file = f"{name}_top_{share}_index.txt"
            try:
                result.top(name, share).save(path / file)
            except ValueError as error:  # more than --parameters lets be scored
                notes.append(f"no {file}: {error}")
            else:
                files.append(file)
    return files


def _by_image(result: Attribution, names: Sequence[str]) -> list[dict[str, Any]]:
    """Losses and completeness of every image, in the order of the scores."""
    return [
        {
            "name": name,
            "degradations": {
                degradation: {
                    "loss_baseline": _number(result.losses[d, n, 0]),
                    "loss_target": _number(result.losses[d, n, 1]),
                    "completeness": _number(result.completeness[d, n]),
                    "estimated_error": _number(result.error[d, n]),
                    "points": int(result.points[d, n]),
                }
                for d, degradation in enumerate(result.degradations)
            },
        }
        for n, name in enumerate(names)
    ]


def _number(value: torch.Tensor) -> float | None:
    """Give a number, or None where JSON has none for it."""
    return float(value) if value.isfinite() else None


def _summary(result: Attribution, pair: tuple[nn.Module, nn.Module], top: Sequence[float]) -> str:
    """Say in a few lines what a person wants to see of a run."""
    known = result.error.isfinite().any()
    share = min(top, default=0.01)
    lines = [
        *(f"{role:<9}{net.faigfast_source}" for role, net in zip(ROLES, pair, strict=True)),
        f"{counted(result.images, 'image')}, {counted(len(result.index), 'filter')}, "
        f"{result.sampling}, {result.backend} {result.precision}; "
        f"errors are those of completeness{', estimated those of the scores' if known else ''}",
        "",
        aligned(*completeness_table(result)),
        "",
    ]
    for name in result.degradations:
        try:
            best = result.top(name, share)
        except ValueError:  # more than --parameters lets be scored
            best = result.ranking(name)
        names = (result.index.locate(flat)[0] for flat in best.indices.tolist())
        layers = Counter(layer.removesuffix(".weight") for layer in names)
        shown = ", ".join(f"{layer} {n}" for layer, n in layers.most_common(LAYERS_SHOWN))
        lines.append(f"top {len(best)} filters of {name}: {shown}")
    return "\n".join(lines)
