"""`faigfast report`: every finding about a pair on one page that needs nothing else."""

import copy
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from faigfast.commands.output import command_line
from faigfast.commands.run_folder import alone_in
from faigfast.commands.study import (
    describe,
    open_crops,
    open_study,
    parse_recipes,
    training_photographs,
)
from faigfast.files import write_json
from faigfast.findings.evaluation import Crops, crops, spread
from faigfast.findings.metrics import SSIM_WINDOW
from faigfast.findings.sections import Material
from faigfast.findings.trials import LEVELS
from faigfast.findings.whole import write_report
from faigfast.machine import describe_machine, describe_versions
from faigfast.training import Schedule

COMPARED = 9  # crops, about, whose filters under many degradations are compared
# Options that the commands of the sections share with the report.
SHARED = (
    "pair", "gt", "lq", "degrade", "scale", "downsampling", "seed", "crop", "attributed",
    "measured", "border", "steps", "backend", "attribution", "contrast", "into",
)  # fmt: skip


def run(options: Any, words: Sequence[str]) -> None:
    """Open the study, make what the sections need beside it, and write the page."""
    for name in ("learned", "predicted"):
        if options[name] < 2:
            raise ValueError(f"{name} is {options[name]}; expected at least 2 crops")
    schedule = Schedule(options.iterations, 2e-3, 8, seed=options.seed)
    given = {name: options[name] for name in SHARED}  # before defaults are filled in
    training = {}
    if options.train or options.gt is None:
        training = training_photographs(options.train, options.gt, "train")
    study = open_study(options)
    if options.crop - 2 * study.border < SSIM_WINDOW:
        raise ValueError(
            f"border {study.border} leaves less than {SSIM_WINDOW} pixels of crops of "
            f"{options.crop}×{options.crop}, which SSIM needs; expected larger crops"
        )
    recipes = {} if options.lq else parse_recipes(options, study.target)
    labels = lessons = compared = None
    strides: dict[str, int] = {}
    if not options.lq:
        labelled = copy.copy(options)
        labelled.degrade = [f"{name}={recipe}" for name, recipe in LEVELS.items()]
        every = open_crops(labelled, study.target)
        strides = {
            name: max(1, math.ceil(len(every.names) / most))
            for name, most in (("predict", options.predicted), ("overlap", COMPARED))
        }
        labels = every.part(slice(0, None, strides["predict"]))
        compared = every.part(slice(0, None, strides["overlap"]))
        if training:
            taught = crops(
                training, parse_recipes(labelled, study.target), options.crop, options.seed
            )
            lessons = spread(taught, options.learned)
    with alone_in(options.output):
        material = Material(
            study,
            Path(options.output),
            _commands(options, given, strides),
            recipes,
            labels,
            compared,
            lessons,
            {} if options.downsampling != "bilinear" else training,
            schedule,
            overwrite=options.overwrite,
        )
        title = options.title or f"Findings about {_name(options, study.target)}"
        machine, versions = describe_machine(), describe_versions()
        on = (
            f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores; torch "
            f"{versions['torch']}, faigfast {versions['faigfast']}."
        )
        remarks = [_data(study.kept, labels, lessons), describe(study), on]
        page, seconds = write_report(material, title, command_line(words), remarks)
        content = {"command": command_line(words), "remarks": remarks, "seconds": round(seconds, 1)}
        write_json(
            material.folder / "report.json", {**content, "versions": versions, "machine": machine}
        )
        size = (material.folder / page).stat().st_size / 1e6
        print(f"wrote {material.folder / page}, {size:.1f} MB, after {seconds:.0f} s")


def _name(options: Any, network: nn.Module) -> str:
    if options.target is None:
        return f"the shipped pair {options.pair or 'srresnet-32x8-x2'}"
    return f"{Path(options.target).name} ({type(network).__name__})"


def _data(kept: Crops, labels: Crops | None, lessons: Crops | None) -> str:
    """Say what the sections beside masking stand on."""
    text = f"Degradations: {', '.join(kept.lq)}."
    if labels is not None:
        text += f" Predicted and compared by level: {len(labels.names)} crops"
        text += f", learned from {len(lessons.names)} of other photographs." if lessons else "."
    return text


def _commands(options: Any, given: dict[str, Any], strides: dict[str, int]) -> dict[str, str]:
    """Write for every section the command that gives its numbers."""
    words = [word for word in (options.baseline, options.target) if word is not None]
    defaults = {"downsampling": "bilinear", "seed": 0, "crop": 96, "attributed": 4, "measured": 1,
                "steps": 20, "backend": "auto"}  # fmt: skip
    for name, value in given.items():
        if value is None or value == defaults.get(name):
            continue
        words.append(f"--{name}")
        words += [str(part) for part in value] if isinstance(value, list) else [str(value)]
    if options.into_kwargs:
        words += ["--into_kwargs", repr(options.into_kwargs).replace("'", '"')]
    levels = [f"{name}={recipe}" for name, recipe in LEVELS.items()]
    labelled = list(words)
    if "--degrade" in labelled:  # the levels stand in its place
        start = labelled.index("--degrade")
        end = next((n for n in range(start + 1, len(labelled)) if labelled[n][:2] == "--"), None)
        labelled = labelled[:start] + (labelled[end:] if end else [])
    for name in ("--measured", "--attributed", "--steps"):  # have values of their own there
        if name in labelled:
            start = labelled.index(name)
            labelled = labelled[:start] + labelled[start + 2 :]
    steps = ["--steps", str(options.steps)] if options.steps != 20 else []
    own = {"predict": "--measured", "overlap": "--attributed"}
    stride = {name: [own[name], str(n)] for name, n in strides.items()}
    train = ["--train", options.train] if options.train else []
    learn = ["--learn", options.train] if options.train else []
    iterations = ["--iterations", str(options.iterations)]
    learned = ["--learned", str(options.learned)]
    more: dict[str, list[str]] = {
        "mask": [*words],
        "locations": [*words],
        "modulate": [*words],
        "predict": [*labelled, *stride.get("predict", []), *learn, *learned],
        "retrain": [*words, *train, *iterations],
        "overlap": [*labelled, *steps, *stride.get("overlap", []), "--degrade", *levels],
        "distribution": [*words],
        "prune": [*words],
    }
    return {name: shlex.join(["faigfast", name, *rest]) for name, rest in more.items()}
