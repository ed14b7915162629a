"""What the finding commands share: a study out of the options, and results on disk."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import faigfast
from faigfast.backends import choose
from faigfast.commands.attribute import named_recipes, open_images, own_network
from faigfast.commands.output import command_line, note, writable_folder
from faigfast.commands.run_folder import alone_in
from faigfast.data.degradations import Degradation
from faigfast.data.folders import image_files
from faigfast.data.images import read_image
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs
from faigfast.files import write_json, write_text
from faigfast.filters import FilterSet
from faigfast.findings.contrasts import Contrast, check_contrasts
from faigfast.findings.evaluation import Crops, crops, cut
from faigfast.findings.figures import svg
from faigfast.findings.frames import shown, write_table
from faigfast.findings.store import Store
from faigfast.findings.study import Study, made_from
from faigfast.machine import describe_machine, describe_versions
from faigfast.quadrature import node_count
from faigfast.tables import aligned
from faigfast.zoo.pairs import PAIRS, shipped_folder, shipped_pair

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

RECIPES = ("blur=2", "noise=0.1")


def open_pair(options: Any) -> tuple[nn.Module, nn.Module]:
    """Load the two networks that the options name, or a shipped pair."""
    if (options.baseline is None) != (options.target is None):
        raise ValueError("one checkpoint is given; expected a baseline and a target, or neither")
    if options.baseline is None:
        if options.into:
            raise ValueError("into is given without checkpoints; expected a baseline and a target")
        return shipped_pair(options.pair or PAIRS[0])
    if options.pair:
        raise ValueError("checkpoints and --pair are given; expected one of them")
    into = own_network(options.into, options.into_kwargs) if options.into else None
    return faigfast.load_pair(options.baseline, options.target, into)


def target_file(options: Any) -> Path:
    """Give the file of the target, whose keys a changed network takes."""
    if options.target is not None:
        return Path(options.target)
    return shipped_folder(options.pair or PAIRS[0]) / "target.safetensors"


def open_crops(options: Any, network: nn.Module, recipes: Sequence[str] = RECIPES) -> Crops:
    """Cut the photographs that the options name."""
    if not options.lq and not options.degrade:
        options.degrade = list(recipes)
    if options.gt is None:
        if options.lq:
            raise ValueError("lq is given without gt; expected the folder of ground truths too")
        images = photographs(KEPT_OUT)
        missing = [name for name in KEPT_OUT if name.partition(".")[0] not in images]
        if missing:
            note(f"without {', '.join(missing)}: pip install 'faigfast[sklearn]'", options.quiet)
        return crops(images, parse_recipes(options, network), options.crop, options.seed)
    dataset, _ = open_images(options, network)
    for text in dataset.notes:
        note(text, options.quiet)
    _check_crop(options.crop, dataset.scale)
    small = [name for name, (h, w) in dataset.sizes.items() if min(h, w) < options.crop]
    if small and len(small) < len(dataset):
        note(f"without {', '.join(small)}, smaller than a crop of {options.crop}", options.quiet)
    items = (dataset[n] for n in range(len(dataset)))
    return cut(
        ((item["name"], item["gt"], item["lq"]) for item in items), options.crop, dataset.scale
    )


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


def open_study(options: Any, split: bool = True) -> Study:
    """Load, cut and check everything that the options name, and open the folder of results.

    Without `split` the same crops are attributed and measured.
    """
    for name in ("attributed", "measured"):
        if options[name] < 1:
            raise ValueError(f"{name} is {options[name]}; expected a positive integer")
    choose(options.backend, "cpu")
    node_count(options.steps)
    baseline, target = open_pair(options)
    data = open_crops(options, target)
    given = None
    if options.attribution:
        given = faigfast.Attribution.load(options.attribution)
    if options.attribution or not split:
        found, kept = data, data.part(slice(0, None, options.measured))
    else:
        every = slice(0, None, options.attributed)
        if len(data.names) < 2 or options.attributed == 1:
            raise ValueError(
                f"{len(data.names)} crops, of which every {options.attributed}th is attributed, "
                "leave none to be measured; expected more or smaller crops"
            )
        found = data.part(every)
        kept = data.without(every).part(slice(0, None, options.measured))
    contrasts = tuple(map(Contrast.parse, options.contrast or ()))
    if contrasts:
        check_contrasts(contrasts, tuple(data.lq))
    border = options.border
    if border is None:
        border = data.gt.shape[-1] // next(iter(data.lq.values())).shape[-1]
    if border < 0 or 2 * border >= options.crop:
        raise ValueError(
            f"border {border} leaves nothing of crops of {options.crop}×{options.crop}"
        )
    folder = writable_folder(options.output)
    identity = made_from(baseline, target, found, kept)
    if options.into:  # which decides what the same tensors compute
        identity |= {"into": options.into, "into_kwargs": options.into_kwargs}
    with alone_in(folder):  # before anything of another command is removed
        store = Store(folder, identity, options.overwrite)
    return Study(
        baseline,
        target,
        found,
        kept,
        border,
        contrasts,
        store,
        options.steps,
        given,
        not options.quiet,
        {"backend": options.backend},
    )


def read_sets(items: Sequence[str]) -> dict[str, FilterSet]:
    """Read index files given as NAME=FILE."""
    sets: dict[str, FilterSet] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or name in sets:
            raise ValueError(f"sets hold {item!r}; expected NAME=FILE, each name once")
        sets[name] = FilterSet.load(path)
    return sets


def read_folder(folder: str) -> dict[str, Tensor]:
    """Read all images of a folder, [3, H, W] by name."""
    return {name: read_image(path) for name, path in image_files(folder).items()}


def training_photographs(folder: str | None, gt: str | None, option: str) -> dict[str, Tensor]:
    """Photographs to learn from: a folder's, or those of the shipped pair's training."""
    if folder:
        return read_folder(folder)
    if gt is not None:
        raise ValueError(
            f"{option} is not given; expected a folder of photographs beside those of --gt, which "
            "are kept for measuring"
        )
    return photographs(TRAINING)


def describe(study: Study) -> str:
    """Say on what a study stands, for below a table."""
    photographs = dict.fromkeys(study.kept.photographs)
    size = study.kept.gt.shape[-1]
    return (
        f"{len(study.kept.names)} crops of {size}×{size} from {', '.join(photographs)}; border of "
        f"{study.border} left out, output rounded to 8 bit. ± is half of a 95 % confidence "
        "interval over crops, narrower than that over photographs. Attributed: "
        f"{len(study.found.names)} crops, {study.steps} points."
    )


def publish(
    options: Any,
    words: Sequence[str],
    name: str,
    tables: Mapping[str, "pandas.DataFrame"],
    figures: Mapping[str, "Figure"] = {},
    remarks: Iterable[str] = (),
) -> None:
    """Print tables, and write them as CSV and Parquet, figures as SVG, and what made them."""
    folder = Path(options.output)
    files = []
    for title, frame in tables.items():
        print(f"{title}\n\n{aligned(*shown(frame))}\n")
        files += write_table(folder / title.replace(" ", "-"), frame)
    for title, figure in figures.items():
        file = f"{title.replace(' ', '-')}.svg"
        write_text(folder / file, svg(figure))
        files.append(file)
    for text in remarks:
        print(text)
    content = {
        "command": command_line(words),
        "remarks": list(remarks),
        "files": files,
        "versions": describe_versions(),
        "machine": describe_machine(),
    }
    write_json(folder / f"{name}.json", content)
    print(f"wrote {', '.join([*files, f'{name}.json'])} in {folder}")
