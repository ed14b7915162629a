"""`faigfast attribute`: two checkpoints and images in; ranked filters and their manifest out."""

import datetime
import re
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import faigfast
from faigfast.analysis.baselines import METHODS, WEIGHT_METHODS, rank_by
from faigfast.analysis.contrasts import NAMES
from faigfast.attribution.contrast_refinement import ranking_goal
from faigfast.backend.catalogue import NAMES as BACKENDS
from faigfast.backend.catalogue import choose
from faigfast.backend.gpu.devices import Devices, Run, known_devices
from faigfast.backend.precision import PRECISIONS, check_precision
from faigfast.cli.figures import figure_files, write_attribution_figures
from faigfast.cli.fitting import check_sizes, check_smallest
from faigfast.cli.output import checkpoint_hash, command_line, note, writable_folder
from faigfast.cli.own_code import (
    chosen_objective,
    objective_identity,
    own_function,
    own_network,
)
from faigfast.cli.reading import Group, Images, group_by_size, hash_images, read_ahead
from faigfast.cli.result_files import planned_files, rankable, write_files
from faigfast.cli.run_folder import SCORES, Hashes, RunFolder
from faigfast.cli.summary import ROLES, by_image, finite, summary
from faigfast.cli.weights import loaded_pair, weights_identity
from faigfast.data.degradations import Degradation
from faigfast.data.degradations.grammar import split_named
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.integration.batch import Batch
from faigfast.integration.objective import resolve_objective
from faigfast.integration.padding import checked_pad
from faigfast.integration.refinement import schedule
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.lock import alone_in
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import counted
from faigfast.models.fused import fused_pair
from faigfast.models.output_shape import image_channels
from faigfast.result import Attribution

# Options that `attribute()` takes unchanged, and on which the scores depend.
SETTINGS = ("rule", "steps", "tol", "emulate", "objective", "parameters", "backend", "precision")
# Options on which the degraded images depend.
IMAGES = ("scale", "downsampling", "seed")
# More of both, with defaults that leave them out of a run's identity.
LATER = {
    "pad": 0, "crop_to": 1, "alpha": "refuse", "recursive": False, "tol_contrast": None,
    "overlap": None,
}  # fmt: skip
OWN = ("into", "into_kwargs")


def run(options: Any, words: Sequence[str]) -> None:
    """Attribute every image of a folder, then write the files and print a summary."""
    devices = _check(options)
    figures = figure_files(options, words)
    pair = load_networks(options)
    channels = image_channels(pair[1])
    images, origins = open_images(options, pair[1], channels)
    if options.method not in WEIGHT_METHODS:
        check_sizes(
            pair[1], images.low_sizes, scale=images.scale, channels=channels, pad=options.pad,
            crop_to=options.crop_to,
        )  # fmt: skip
        check_smallest(images, resolve_objective(chosen_objective(options.objective))[1])
    # Collected first, so that no error here follows hours of computation.
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
        **{role: checkpoint_hash(Path(options[role])) for role in ROLES},
        # The content of folders counts, not their path: the run folder hashes the images.
        "degradations": {k: v if options.degrade else "folder" for k, v in origins.items()},
        "order": list(origins),  # of the degradations in the results
        **{name: options[name] for name in (*SETTINGS, *IMAGES, *OWN)},
        "objective": objective_identity(options.objective),
        **({"device": devices[0].type} if devices and devices[0].type != "cpu" else {}),
        # Absent for FAIG: run folders of older versions have no method.
        **({} if options.method == "faig" else {"method": options.method}),
        **({"fuse": options.fuse} if options.fuse else {}),
        **weights_identity(options),
        **{name: options[name] for name, usual in LATER.items() if options[name] != usual},
        "faigfast": versions["faigfast"],
        "torch": versions["torch"],
    }
    files = planned_files(origins, options.top)
    path = writable_folder(options.output)
    with alone_in(path):
        hashes = partial(hash_images, images, options.quiet)
        folder = RunFolder(path, made_from, images.names, hashes, files, options.overwrite, options)
        for text in images.notes:
            note(text, options.quiet)
        if folder.manifest:
            note(f"{folder.path} holds this run already; nothing is computed again", options.quiet)
            result = Attribution.load(folder.path / SCORES)
            manifest |= {key: folder.manifest.get(key) for key in ("machine", "time")}
        else:
            result, manifest["time"] = _compute(pair, images, folder, options, devices)
        notes = [*images.notes, *result.notes]
        files = write_files(folder.path, result, options.top, notes)
        files += write_attribution_figures(
            figures, folder.path, result, pair, min(options.top, default=0.01)
        )
        manifest |= {
            "used": {
                "backend": result.backend,
                "precision": result.precision,
                "scale": images.scale,
                "points_per_image": result.evaluations,
                "distance": finite(result.distance.network),
            },
            "images": by_image(result, images.names),
            "notes": notes,
            "files": files,
        }
        folder.finish(manifest)
        print(summary(result, pair, options.top))
        for text in notes[len(images.notes) :]:
            note(text, options.quiet)
        print(f"wrote {', '.join([*files, 'manifest.json'])} in {folder.path}")
    if not any(rankable(result, name) for name in result.degradations):
        result.ranking(result.degradations[0])  # says why there is none


def _check(options: Any) -> list[torch.device]:
    """Refuse wrong options before images are opened and the folder is made.

    Returns
    -------
    list of torch.device
        The devices in the options; empty if none are given.
    """
    for fraction in options.top:
        if not 0 < fraction <= 1:
            raise ValueError(f"top is {fraction}; expected fractions in (0, 1]")
    if options.method not in METHODS:
        raise ValueError(f"method is {options.method!r}; expected one of {', '.join(METHODS)}")
    checked_pad(options.pad)
    goal = ranking_goal(
        options.tol_contrast, options.overlap, options.rule, options.steps, options.emulate
    )
    if goal is not None and options.method != "faig":
        raise ValueError(f"tol_contrast and overlap refine the method faig, not {options.method!r}")
    schedule(options.rule, None if goal else options.steps, options.tol, options.emulate)
    chosen_objective(options.objective)
    check_precision(options.precision)
    names = options.devices
    devices = known_devices("all" if names == ["all"] else names) if names else []
    for device in devices or [torch.device("cpu")]:
        choose(options.backend, device, options.precision)
    return devices


def load_networks(options: Any) -> tuple[nn.Module, nn.Module]:
    """Load the two networks that the options name, with their branches merged where asked for."""
    into = own_network(options.into, options.into_kwargs) if options.into else None
    fuse = own_function("fuse", options.fuse) if options.fuse else None
    return fused_pair(fuse, *loaded_pair(options, into))


def open_images(options: Any, network: nn.Module, channels: int) -> tuple[Images, dict[str, str]]:
    """Open the data set; give with it the folder or recipe of each degradation."""
    if bool(options.lq) == bool(options.degrade):
        number = "both" if options.lq else "neither"
        raise ValueError(f"{number} of --lq and --degrade given; expected one of them")
    if options.lq_name is not None and not options.lq:
        raise ValueError("lq_name is given without --lq; expected the folders of degraded images")
    reading: dict[str, Any] = {
        "channels": channels,
        "alpha": options.alpha,
        "recursive": options.recursive,
        "crop_to": options.get("crop_to", 1),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `notes` has the same text
        if options.lq:
            folders = _by_name("lq", (_split(item) for item in options.lq))
            name = options.lq_name
            images = PairedFolders(options.gt, folders, options.scale, lq_name=name, **reading)
            return images, folders
        scale = options.scale if options.scale is not None else getattr(network, "scale", None)
        if not isinstance(scale, int):
            raise ValueError("scale is not given and the network does not tell it; add --scale")
        recipes = named_recipes(options.degrade)
        degradations = {
            name: Degradation.parse(recipe, scale, options.downsampling)
            for name, recipe in recipes.items()
        }
        return DegradedFolder(options.gt, degradations, options.seed, **reading), recipes


def named_recipes(items: Sequence[str]) -> dict[str, str]:
    """Read the recipes of --degrade by name."""
    return _by_name("degrade", map(split_named, items))


def _split(item: str) -> tuple[str, str]:
    """Read NAME=VALUE; a VALUE alone is named "lq"."""
    name, equals, value = item.partition("=")
    return (name, value) if equals else ("lq", item)


def _by_name(option: str, items: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in items:
        if not re.fullmatch(NAMES, name):
            raise ValueError(f"{option} has the name {name!r}; expected letters, digits, . + - _")
        if name in values:
            raise ValueError(f"{option} names {name!r} twice; expected each once")
        values[name] = value
    return values


def _compute(
    pair: tuple[nn.Module, nn.Module],
    images: Images,
    folder: RunFolder,
    options: Any,
    devices: list[torch.device],
) -> tuple[Attribution, dict[str, Any]]:
    """Attribute the images that the folder does not hold yet; give the result and times."""
    kept = sorted(folder.finished)
    given = {name: options[name] for name in SETTINGS} | {
        "memory": options.memory,
        "pad": options.pad,
        "objective": chosen_objective(options.objective),
    }
    if options.method == "faig":
        given |= {"tol_contrast": options.tol_contrast, "overlap": options.overlap}
    if kept:
        note(
            f"going on: {len(kept)} of {counted(len(images), 'image')} finished, in "
            f"{folder.parts.folder}",
            options.quiet,
        )
        # What "auto" chose for the first images holds for all.
        setting = folder.load(kept[0]).setting
        if given["precision"] == "auto" and setting.precision in PRECISIONS:
            given["precision"] = setting.precision
        if given["backend"] == "auto" and setting.backend in BACKENDS:
            given["backend"] = setting.backend
            choose(setting.backend, devices[0] if devices else "cpu", given["precision"])
    started, start = datetime.datetime.now(datetime.timezone.utc), time.perf_counter()
    groups = _missing(images, set(kept), options, devices)
    order = [n for group in groups for n in group]
    reading = read_ahead(images, groups, next(pair[1].parameters()).dtype)
    hashes: Hashes = {}
    parts = _batches(reading, hashes)
    faig = options.method == "faig"
    rank: Run = faigfast.attribute if faig else partial(rank_by, options.method, seed=options.seed)
    if devices and groups:
        results = _on_devices(Devices(devices, *pair, rank, given), parts)
    else:
        given["progress"] = not options.quiet
        run = faigfast.Attributor(*pair, **given) if faig else partial(rank, *pair, **given)
        results = (run(_mapping(part)) for part in parts)
    bar_options = {"desc": "images", "unit": "image", "disable": options.quiet}
    done = 0
    with (
        _progress_in_interrupt(folder, len(images)),
        closing(reading),
        closing(results),
        progress_bar(total=len(images), initial=len(kept), **bar_options) as bar,
    ):
        try:
            for result in results:
                own = order[done : done + result.images]
                folder.keep(own, result, hashes)
                done += len(own)
                bar.update(len(own))
        except (ValueError, TypeError, RuntimeError) as error:
            # Errors number images within the group (with devices, the run); give the name instead.
            text = re.search(r", image (\d+)\b", str(error))
            if text is None:
                raise
            position = order[int(text[1]) + (0 if devices else done)]
            name = f", image {images.names[position]!r}"
            kinds = (ValueError, TypeError, RuntimeError)
            kind = next(kind for kind in kinds if isinstance(error, kind))
            raise kind(str(error).replace(text[0], name, 1)) from error
    first_one, *others = (folder.load(n) for n in range(len(images)))
    return first_one.merge(others), {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 3),
        "images_computed": len(order),
        "images_kept_from_an_interrupted_run": len(kept),
    }


def _missing(
    images: Images, kept: set[int], options: Any, devices: Sequence[torch.device]
) -> list[list[int]]:
    """Group the images that are missing; finished images do not change the groups."""
    if options.method in WEIGHT_METHODS:  # one image a result
        return [[n] for n in range(len(images)) if n not in kept]
    sizes = [(h // images.scale, w // images.scale) for h, w in images.sizes.values()]
    groups = group_by_size(sizes, len(options.lq or options.degrade), max(1, len(devices)))
    missing = ([n for n in group if n not in kept] for group in groups)
    return [group for group in missing if group]


def _batches(groups: Iterable[Group], hashes: Hashes) -> Iterator[Batch]:
    """Yield the batches of groups; `hashes` receives their hashes."""
    for group in groups:
        hashes |= group.hashes
        yield group.batch


def _mapping(part: Batch) -> dict[str, Any]:
    """Give a batch with one ground truth for all degradations as a mapping for `attribute`."""
    return {"lq": part.lq, "gt": next(iter(part.gt.values()))}


def _on_devices(pool: Devices, parts: Iterable[Batch]) -> Generator[Attribution, None, None]:
    with pool:
        yield from pool.map(parts)


@contextmanager
def _progress_in_interrupt(folder: RunFolder, images: int) -> Iterator[None]:
    """Add the number of finished images to the message of an interrupt."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise type(stop)(
            f"{len(folder.finished)} of {counted(images, 'image')} finished; the same command goes "
            "on with the rest"
        ) from None
