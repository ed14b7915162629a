"""`faigfast report`: all analyses of a pair on one self-contained page."""

import copy
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from faigfast.analysis import retraining
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.evaluation import METRICS
from faigfast.analysis.prediction_trials import LEVELS
from faigfast.analysis.report.full_report import PAGE, write_full_report
from faigfast.analysis.report.sections import Material
from faigfast.analysis.report.sections.material import PATCH, RETRAINING
from faigfast.analysis.report.sections.use import one_contrast_each
from faigfast.cli.estimate import RETRAINING_BATCH, announce_report
from faigfast.cli.figures import figure_files
from faigfast.cli.output import command_line, note
from faigfast.cli.remarks import describe
from faigfast.cli.study import (
    learned_crops,
    open_crops,
    open_pair,
    open_study,
    parse_recipes,
    training_photographs,
)
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.models.output_shape import image_channels
from faigfast.training.trainer import Schedule

COMPARED = 9  # about so many crops compare filters under many degradations
# Options that the commands of the sections share with the report.
SHARED = (
    "pair", "gt", "lq", "degrade", "scale", "downsampling", "seed", "crop", "attributed",
    "measured", "border", "steps", "backend", "attribution", "contrast", "into",
    "lq_name", "recursive", "alpha", "pad", "objective", "key", "dtype", "noise_level",
)  # fmt: skip
DEFAULTS = {"downsampling": "bilinear", "seed": 0, "crop": 96, "attributed": 4, "measured": 1,
            "steps": 20, "backend": "auto",
            "recursive": False, "alpha": "refuse", "pad": 0,
            "objective": "squared_error"}  # fmt: skip


def run(options: Any, words: Sequence[str]) -> None:
    """Open the study, prepare the other inputs of the sections, and write the page."""
    for name in ("learned", "predicted"):
        if options[name] < 2:
            raise ValueError(f"{name} is {options[name]}; expected at least 2 crops")
    schedule = Schedule(options.iterations, 2e-3, RETRAINING_BATCH, seed=options.seed)
    given = {name: options[name] for name in SHARED}  # before defaults are set
    pair, training = open_pair(options), {}
    if options.train or options.gt is None:
        training = training_photographs(options.train, "train", options, image_channels(pair[1]))
    study = open_study(options, pair=pair, metrics=tuple(METRICS))
    recipes = {} if options.lq else parse_recipes(options, study.target)
    labelled, teaching_crops = options, None
    if not options.lq:  # folders of degraded images have no other degradations
        labelled = copy.copy(options)
        if not given["degrade"]:
            labelled.degrade = [f"{name}={recipe}" for name, recipe in LEVELS.items()]
        if training:
            teaching_crops = learned_crops(options, training, labelled.degrade, study.target)
    bilinear = options.downsampling == "bilinear"  # like training patches
    learnt = (
        retraining.training_patches(one_contrast_each(study)[0], training, recipes, (), PATCH)
        if training and bilinear
        else {}
    )
    if not options.overwrite:  # here, not after all other parts
        retraining.check_states(learnt, schedule, Path(options.output) / RETRAINING)
    every = open_crops(labelled, study.target)
    strides = {
        name: math.ceil(len(every.names) / most)
        for name, most in (("predict", options.predicted), ("overlap", COMPARED))
    }
    labels = every.part(slice(0, None, strides["predict"]))
    compared = every.part(slice(0, None, strides["overlap"]))
    with alone_in(options.output):
        announce_report(study, options, len(learnt), labels, compared)
        figures = figure_files(options, words)
        material = Material(
            study,
            Path(options.output),
            _commands(options, given, strides, study.contrasts),
            labels,
            compared,
            recipes,
            teaching_crops,
            training if learnt else {},
            schedule,
            overwrite=options.overwrite,
            figures=figures if figures.formats else None,
            about=describe(study, rivals=True),
        )
        title = options.title or f"Findings about {_name(options, study.target)}"
        hardware, versions = describe_machine(), describe_versions()
        on = (
            f"{hardware['cpu']}, {hardware['threads']} of {hardware['cores']} cores; torch "
            f"{versions['torch']}, faigfast {versions['faigfast']}."
        )
        predicted = counted(len(labels.names), "crop")
        counts = f"{predicted} predicted and {len(compared.names)} compared"
        learned = (
            f", learned from {len(teaching_crops.names)} of other photographs"
            if teaching_crops
            else ""
        )
        of = "Of levels" if labels.lq.keys() != study.measured.lq.keys() else "Of these"
        data = f"Degradations: {', '.join(study.measured.lq)}. {of}: {counts}{learned}."
        remarks = [data, describe(study, rivals=True), on]
        seconds, notes = write_full_report(material, title, command_line(words), remarks)
        content = {
            "command": command_line(words),
            "remarks": remarks,
            "notes": notes,
            "files": [PAGE, *material.files],
            "seconds": round(seconds, 1),
            "versions": versions,
            "machine": hardware,
        }
        write_json(material.folder / "report.json", content)
        for text in notes:
            note(text, options.quiet)
        size = (material.folder / PAGE).stat().st_size / 1e6
        print(f"wrote {material.folder / PAGE}, {size:.1f} MB, after {seconds:.0f} s")


def _name(options: Any, network: nn.Module) -> str:
    if options.target is None:
        return f"the shipped pair {options.pair or 'srresnet-32x8-x2'}"
    return f"{Path(options.target).name} ({type(network).__name__})"


def _commands(
    options: Any, given: dict[str, Any], strides: dict[str, int], contrasts: Sequence[Contrast]
) -> dict[str, str]:
    """Give the command of every section, which prints its numbers."""
    words_by_option: dict[str, list[str]] = {}
    for name, value in given.items():
        if value is not None and value != DEFAULTS.get(name):
            values = [] if value is True else value if isinstance(value, list) else [value]
            words_by_option[name] = [f"--{name}", *map(str, values)]
    if options.into_kwargs:
        words_by_option["into_kwargs"] = ["--into_kwargs", json.dumps(options.into_kwargs)]
    pair = [word for word in (options.baseline, options.target) if word is not None]

    def words(*without: str) -> list[str]:
        parts = (part for name, part in words_by_option.items() if name not in without)
        return pair + [word for part in parts for word in part]

    def stride(name: str, section: str) -> list[str]:
        return [f"--{name}", str(strides[section])]

    # Without --degrade, levels replace the recipes of the study.
    levels = []
    if not options.lq and not given["degrade"]:
        levels = ["--degrade", *(f"{n}={r}" for n, r in LEVELS.items())]
    # Names of degradations are contrasts too.
    texts = given["contrast"] or [contrast.name for contrast in contrasts]
    first = {c.degradation: n for n, c in reversed(list(enumerate(contrasts)))}

    def some(places: Sequence[int]) -> list[str]:
        if len(places) == len(texts):
            return words()
        return [*words("contrast"), "--contrast", *(texts[n] for n in places)]

    measuring, ranking = ("measured", "border"), ("attributed", "attribution", "contrast")
    train = ["--train", options.train] if options.train else []
    learn = ["--learn", options.train] if options.train and not options.lq else []
    own = {
        "predict": [
            *words("steps", *measuring, *ranking),
            *stride("measured", "predict"), *learn, "--learned", str(options.learned),
        ],
        "retrain": [
            *some(sorted(first.values())), *train, "--iterations", str(options.iterations)
        ],
        "overlap": [
            *words(*measuring, *ranking), *stride("attributed", "overlap"), *levels,
        ],
        "distribution": words(*measuring),
        "prune": words(*measuring),
        "grid": some(range(min(2, len(texts)))),
        "contrasts": words(*measuring),
    }  # fmt: skip
    commands = {"grid": "modulate", "contrasts": "overlap"}
    sections = ("mask", "locations", "modulate", *own)
    return {
        name: shlex.join(["faigfast", commands.get(name, name), *own.get(name, words())])
        for name in sections
    }
