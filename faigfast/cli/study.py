"""Functions that the analysis commands share: a study from the options, and results on disk."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import faigfast
from faigfast.analysis.contrasts import Contrast, check_contrasts, one_against_rest
from faigfast.analysis.data_frames import (
    brief_names,
    text_table,
    without_parquet,
    write_data_frame,
)
from faigfast.analysis.evaluation import (
    Crops,
    check_metrics,
    crops,
    cut_crops,
    evenly_spaced,
    restore,
)
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import check_contrast_names
from faigfast.analysis.metrics import SSIM_WINDOW
from faigfast.analysis.report.paper import PaperFigure
from faigfast.analysis.study import Study, study_identity
from faigfast.backend.catalogue import choose
from faigfast.cli.attribute import (
    load_networks,
    named_recipes,
    open_images,
)
from faigfast.cli.figures import figure_files
from faigfast.cli.other_run import PARTS, remember
from faigfast.cli.output import command_line, note, sha256, writable_folder
from faigfast.cli.own_code import chosen_objective, objective_identity, own_function
from faigfast.cli.weights import refuse_without_checkpoints, weights_identity
from faigfast.data.degradations import Degradation
from faigfast.data.folders import image_files
from faigfast.data.images import read_image
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.integration.padding import checked_pad
from faigfast.integration.quadrature import node_count
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.fitted_table import fitted
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.models.fused import fused_pair
from faigfast.models.output_shape import image_channels
from faigfast.models.state import blaming
from faigfast.zoo.pairs import PAIRS, shipped_folder, shipped_pair

if TYPE_CHECKING:
    import pandas

RECIPES = ("blur=2", "noise=0.1")
EXTRAS = {"pandas": "tables", "matplotlib": "figures", "scipy": "intervals"}  # in `report`
LEARNED_SEED = 1 << 16  # added to the seed, so that learned and measured crops differ in noise


def open_pair(options: Any) -> tuple[nn.Module, nn.Module]:
    """Load the two networks that the options name, or a shipped pair."""
    if (options.baseline is None) != (options.target is None):
        raise ValueError("one checkpoint is given; expected a baseline and a target, or neither")
    if options.baseline is None:
        if options.into:
            raise ValueError("into is given without checkpoints; expected a baseline and a target")
        refuse_without_checkpoints(options)
        fuse = own_function("fuse", options.fuse) if options.fuse else None
        return fused_pair(fuse, *shipped_pair(options.pair or PAIRS[0]))
    if options.pair:
        raise ValueError("checkpoints and --pair are given; expected one of them")
    return load_networks(options)


def target_file(options: Any) -> Path:
    """Give the file of the target; a changed network is saved under its keys."""
    if options.target is not None:
        return Path(options.target)
    return shipped_folder(options.pair or PAIRS[0]) / "target.safetensors"


def open_crops(options: Any, network: nn.Module, recipes: Sequence[str] = RECIPES) -> Crops:
    """Cut the photographs that the options name."""
    if not options.lq and not options.degrade:
        options.degrade = list(recipes)
    channels = image_channels(network)
    if options.gt is None:
        if options.lq:
            raise ValueError("lq is given without gt; expected the folder of ground truths too")
        images = photographs(KEPT_OUT, channels)
        missing = [name for name in KEPT_OUT if name.partition(".")[0] not in images]
        if missing:
            note(f"without {', '.join(missing)}: pip install 'faigfast[sklearn]'", options.quiet)
        data = crops(images, parse_recipes(options, network), options.crop, options.seed)
        note_small(sizes_of(images), options.crop, "crop", options.quiet)
        return replace(data, pad=options.pad)
    dataset, _ = open_images(options, network, channels)
    for text in dataset.notes:
        note(text, options.quiet)
    _check_crop(options.crop, dataset.scale)
    small = note_small(dataset.sizes, options.crop, "crop", options.quiet)
    items = (dataset[n] for n, name in enumerate(dataset.names) if name not in small)
    data = cut_crops(
        ((item["name"], item["gt"], item["lq"]) for item in items), options.crop, dataset.scale
    )
    return replace(data, pad=options.pad)


def note_small(
    sizes: Mapping[str, tuple[int, int]], size: int, what: str, quiet: bool
) -> list[str]:
    """Name the photographs smaller than a crop or patch; note them unless all are too small."""
    small = [name for name, sides in sizes.items() if min(sides) < size]
    if small and len(small) < len(sizes):
        note(f"without {', '.join(small)}, smaller than a {what} of {size}", quiet)
    return small


def sizes_of(images: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Height and width of photographs [C, H, W] by name."""
    return {name: (image.shape[-2], image.shape[-1]) for name, image in images.items()}


def parse_recipes(options: Any, network: nn.Module) -> dict[str, Degradation]:
    """Read --degrade at the network's scale."""
    scale = options.scale if options.scale is not None else getattr(network, "scale", None)
    if not isinstance(scale, int):
        raise ValueError("scale is not given and the network does not tell it; add --scale")
    _check_crop(options.crop, scale)
    return {
        name: Degradation.parse(recipe, scale, options.downsampling)
        for name, recipe in named_recipes(options.degrade).items()
    }


def _check_crop(size: int, scale: int) -> None:
    if size < 1 or size % scale:
        raise ValueError(f"crop is {size}; expected a positive multiple of the scale {scale}")


def check_shares(values: Iterable[float]) -> None:
    """Refuse numbers outside (0, 1]."""
    for value in values:
        if not 0 < value <= 1:
            raise ValueError(f"fraction is {value}; expected a share of the filters in (0, 1]")


def measured_alone(options: Any, instead: str) -> Any:
    """Remove the options of rankings; refuse them beside the option `instead`."""
    options = copy.copy(options)
    for name in ("attribution", "contrast"):
        if options[name]:
            raise ValueError(f"{instead} and --{name} are given; expected one of them")
    for name in ("attributed", "attribution", "contrast"):
        del options[name]
    return options


def open_study(
    options: Any,
    pair: tuple[nn.Module, nn.Module] | None = None,
    metrics: Sequence[str] = (),
) -> Study:
    """Load the pair, cut the crops, check the options, and open the folder of results.

    Parameters
    ----------
    options : Namespace
        Of the command. With `attributed` and `measured` some crops are attributed and others
        measured; with one of the two, every crop may serve it.
    pair : tuple of nn.Module, optional
        The networks, if they are loaded already.
    metrics : sequence of str
        Metrics of the measurement.
    """
    for name in ("attributed", "measured"):
        if options.get(name, 1) < 1:
            raise ValueError(f"{name} is {options[name]}; expected a positive integer")
    figure_files(options)
    check_shares([options.fraction] if "fraction" in options else [])
    check_metrics(metrics)
    _check_extras(metrics)
    choose(options.backend, "cpu")
    checked_pad(options.pad)
    steps = options.get("steps", 1)  # a command without a line has none
    node_count(steps)
    objective = chosen_objective(options.objective)
    baseline, target = pair or open_pair(options)
    data = open_crops(options, target)
    given = None
    if options.get("attribution"):
        given = faigfast.Attribution.load(options.attribution)
    every = slice(0, None, options.get("attributed"))
    if "measured" not in options:
        attributed = measured = data if given is not None else data.part(every)
    elif given is not None or "attributed" not in options:
        attributed, measured = data, data.part(slice(0, None, options.measured))
    else:
        if len(data.names) < 2 or options.attributed == 1:
            raise ValueError(
                f"attributed is {options.attributed}, which leaves none of "
                f"{counted(len(data.names), 'crop')} to be measured; expected more or smaller crops"
            )
        attributed = data.part(every)
        measured = data.without(every).part(slice(0, None, options.measured))
    contrasts = tuple(map(Contrast.parse, options.get("contrast") or ()))
    if contrasts:
        check_contrasts(contrasts, tuple(data.lq))
    if metrics and "attributed" in options:  # masked by rankings
        check_contrast_names(contrasts or one_against_rest(tuple(data.lq)))
    border = options.get("border", 0)
    if border is None:
        border = data.gt.shape[-1] // next(iter(data.lq.values())).shape[-1]
    inner, crop = options.crop - 2 * border, f"{options.crop}×{options.crop}"
    if border < 0 or inner < 1:
        raise ValueError(f"border {border} leaves nothing of crops of {crop}")
    if inner < SSIM_WINDOW and any(name.startswith("ssim") for name in metrics):
        raise ValueError(
            f"border {border} leaves less than {SSIM_WINDOW} pixels of crops of {crop}, which SSIM "
            "needs; expected larger crops"
        )
    if "border" in options:
        measured = _without_flat(measured, border, options.quiet)
    _check_network(target, data)
    study = Study(
        baseline,
        target,
        attributed,
        measured,
        border,
        contrasts,
        FinishedParts(),
        steps,
        given,
        not options.quiet,
        {
            "backend": options.backend,
            **({"pad": options.pad} if options.pad else {}),
            **({} if objective == "squared_error" else {"objective": objective}),
        },
    )
    folder = writable_folder(options.output)
    identity = study_identity(baseline, target, attributed, measured)
    if options.into:  # the same tensors compute something else in other code
        identity |= {"into": options.into, "into_kwargs": options.into_kwargs}
    if options.fuse:
        identity |= {"fuse": options.fuse}
    if objective != "squared_error":
        identity |= {"objective": objective_identity(options.objective)}
    identity |= weights_identity(options)
    with alone_in(folder):  # before removing parts of another run
        finished_parts = FinishedParts(folder, identity, options.overwrite)
        remember(folder / PARTS, options, options.overwrite)
        return replace(study, finished_parts=finished_parts)


def _without_flat(measured: Crops, border: int, quiet: bool) -> Crops:
    """Leave out flat crops, and note them; refuse crops that are all flat."""
    kept = measured.without_flat(border)
    if not kept.names:
        raise ValueError("all measured crops are of one colour; expected photographs")
    if left_out := [name for name in measured.names if name not in kept.names]:
        note(f"without {', '.join(left_out)}, of one colour: their PSNR can be infinite", quiet)
    return kept


def _check_extras(metrics: Sequence[str]) -> None:
    """Refuse to start without the packages that write the results."""
    wanted = dict(EXTRAS)
    if any(name.startswith("ssim") for name in metrics):
        wanted["torchmetrics"] = "values of SSIM"
    for package, what in wanted.items():
        if find_spec(package) is None:
            raise ImportError(f"{what} need {package}: pip install 'faigfast[report]'")


def read_sets(items: Sequence[str], pair: tuple[nn.Module, nn.Module]) -> dict[str, FilterSet]:
    """Read index files given as NAME=FILE; refuse a file with the fingerprints of another pair."""
    sets: dict[str, FilterSet] = {}
    total = len(FilterIndex.of(pair[1]))
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or name in sets:
            raise ValueError(f"sets hold {item!r}; expected NAME=FILE, each name once")
        sets[name] = FilterSet.load(path, total)
        with blaming(f"set {name!r}", ValueError):
            sets[name].check_pair(*pair)
    return sets


def _check_network(network: nn.Module, data: Crops) -> None:
    """Refuse a network whose output has not the ground truth's shape, before a long run."""
    for name, lq in data.lq.items():
        with blaming(f"the network does not take {name!r} {list(lq[:1].shape)}", Exception):
            output = restore(network, lq[:1], data.pad, data.gt.shape[2:])
        if output.shape != data.gt[:1].shape:
            raise ValueError(
                f"the network makes {list(output.shape)} of {name!r} {list(lq[:1].shape)}; "
                f"expected the ground truth's {list(data.gt[:1].shape)}: another --scale? A "
                "network that loses pixels needs --pad"
            )


def read_folder(folder: str, options: Any, channels: int) -> dict[str, Tensor]:
    """Read all images of a folder, [C, H, W] by name."""
    files = image_files(folder, recursive=options.recursive)
    reading = {"channels": channels, "alpha": options.alpha}
    return {name: read_image(path, **reading) for name, path in files.items()}


def training_photographs(
    folder: str | None, option: str, options: Any, channels: int
) -> dict[str, Tensor]:
    """Photographs to learn from: a folder's, or those of the shipped pair's training."""
    gt = options.gt
    if folder:
        if gt is not None:
            files = [image_files(f, recursive=options.recursive) for f in (gt, folder)]
            known = {sha256(path) for path in files[0].values()}
            both = [name for name, path in files[1].items() if sha256(path) in known]
            if both:
                raise ValueError(
                    f"{option} {folder} holds {', '.join(both)} of --gt; expected other "
                    "photographs, since nothing can be said about those that were learned from"
                )
        return read_folder(folder, options, channels)
    if gt is not None:
        raise ValueError(
            f"{option} is not given; expected a folder of photographs beside those of --gt, which "
            "are kept for measuring"
        )
    return photographs(TRAINING, channels)


def learned_crops(
    options: Any, images: Mapping[str, Tensor], recipes: Sequence[str], network: nn.Module
) -> Crops:
    """Cut photographs to learn from, with other noise, and take some of their crops.

    A note names the photographs without a crop.
    """
    options = copy.copy(options)
    options.degrade = list(recipes)
    data = crops(images, parse_recipes(options, network), options.crop, options.seed + LEARNED_SEED)
    small = note_small(sizes_of(images), options.crop, "crop", options.quiet)
    taken = replace(evenly_spaced(data, options.learned), pad=options.pad)
    if rest := [name for name in images if name not in (*small, *taken.photographs)]:
        note(f"none of {counted(len(taken.names), 'crop')} is of {', '.join(rest)}", options.quiet)
    return taken


def publish(
    options: Any,
    words: Sequence[str],
    name: str,
    data_frames: Mapping[str, "pandas.DataFrame"],
    figures: Mapping[str, PaperFigure] = {},
    remarks: Iterable[str] = (),
    written: Sequence[str] = (),
) -> None:
    """Print data frames; write them and figures to files, and a JSON manifest.

    The manifest lists the files in `written` too.
    """
    folder = Path(options.output)
    files = list(written)
    for title, data_frame in data_frames.items():
        print(f"{title}\n\n{fitted(*text_table(data_frame))}\n")
        files += write_data_frame(folder / title.replace(" ", "-"), data_frame)
    for title, figure in figures.items():
        files += figure_files(options, words).write(folder, title, figure)
    for text in remarks:
        print(text)
    for text in without_parquet(files):
        note(text, options.quiet)
    content = {
        "command": command_line(words),
        "remarks": list(remarks),
        "files": files,
        "versions": describe_versions(),
        "machine": describe_machine(),
    }
    write_json(folder / f"{name}.json", content)
    print(f"wrote {brief_names([*files, f'{name}.json'])} in {folder}")
