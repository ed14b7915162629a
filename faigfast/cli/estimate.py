"""How long a command will take, said before its long part."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faigfast.analysis.baselines import METHODS, WEIGHT_METHODS
from faigfast.analysis.demo import ATTRIBUTED, CROP, DEGRADATIONS, MEASURED, SCALE
from faigfast.analysis.dial import METRICS as DIAL_METRICS
from faigfast.analysis.evaluation import METRICS, Crops, crops, restore
from faigfast.analysis.locations import EXPERIMENTS
from faigfast.analysis.masking import DRAWS, FRACTIONS
from faigfast.analysis.modulation import STRENGTHS
from faigfast.analysis.report.sections.material import PATCH
from faigfast.analysis.retraining_runs import RETRAINED_NETWORKS
from faigfast.analysis.study import Study
from faigfast.cli.other_run import PARTS
from faigfast.cli.output import note
from faigfast.cli.workload import LONG, STEP, TIMED, Workload, announcement, seconds_of
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.io.text_table import counted
from faigfast.zoo.pairs import shipped_pair

RETRAINING_BATCH = 8  # of the report
ABLATION = 0.3  # time of an ablation in restorations, on the shipped pair


def count_masked(methods: Sequence[str], contrasts: int, fractions: int, by: str = "kernel") -> int:
    """Count the networks that masking measures, random ones and the pair itself included."""
    one_set = sum(method in WEIGHT_METHODS and method != "random" for method in methods)
    others = sum(method not in WEIGHT_METHODS for method in methods)
    random = 1 if "random" in methods else DRAWS
    layers = contrasts * DRAWS if by != "layer" and list(methods[:1]) != ["random"] else 0
    return 2 + fractions * (one_set + others * contrasts + random + layers)


def announce_mask(study: Study, options: Any) -> None:
    """Note the time of `faigfast mask`."""
    if options.quiet:
        return
    work = Workload(study.target, study.measured, options.metrics, study.border)
    if study.given is None:
        work.attribute(study, study.attributed, options.methods)
    fractions = len(set(options.fractions))
    networks = count_masked(options.methods, len(study.contrasts), fractions, options.by)
    work.measure(networks, study.measured)
    work.announce(options.output, fewer(work, options))


def announce_report(
    study: Study, options: Any, trainings: int, labels: Crops, compared: Crops
) -> None:
    """Note the time of `faigfast report`."""
    if options.quiet:
        return
    work = Workload(study.target, study.measured, tuple(METRICS), study.border)
    methods = [name for name in METHODS if name != "random"]
    work.attribute(study, study.attributed, methods)
    work.attribute(study, labels)
    work.attribute(study, compared)
    contrasts, count = len(study.contrasts), len(FRACTIONS)
    masked = sum(count_masked(["faig"], contrasts, count, by) for by in ("channel", "layer"))
    experiments = sum(DRAWS if several else 1 for _, several in EXPERIMENTS.values())
    each = experiments + len(STRENGTHS)
    work.measure(
        count_masked(methods, contrasts, count) + masked + contrasts * each, study.measured
    )
    work.train(trainings * len(RETRAINED_NETWORKS), options.iterations, RETRAINING_BATCH, PATCH)
    work.announce(options.output, fewer(work, options))


def announce_dial(
    study: Study, options: Any, contrasts: int, selection: Crops, measured: Crops
) -> None:
    """Note the time of `faigfast dial`, without the derivation of its baseline."""
    if options.quiet:
        return
    work = Workload(study.target, measured, DIAL_METRICS, study.border)
    if study.given is None:
        work.attribute(study, study.attributed)
    levels = len({0.0, 1.0, *options.strengths}) - 1  # without strength 1, the target
    work.measure(2 + contrasts * len(set(options.fractions)), selection)
    work.measure(1 + levels + contrasts * (levels + DRAWS), measured)
    work.announce(options.output, fewer(work, options))


def announce_retrain(study: Study, options: Any, degradations: int) -> None:
    """Note the time of `faigfast retrain`."""
    if options.quiet:
        return
    work = Workload(study.target, study.measured, border=study.border)
    if study.given is None and "attributed" in options:
        work.attribute(study, study.attributed)
    trainings = degradations * len(RETRAINED_NETWORKS)
    work.train(trainings, options.iterations, options.batch, options.patch)
    work.measure(2 + trainings, study.measured)
    work.announce(options.output, f"--iterations {fewer_iterations(options.iterations)}")


def announce_ablation(study: Study, ablations: int, options: Any) -> None:
    """Note the time of `faigfast ablate`."""
    if options.quiet:
        return
    data = study.measured
    work = Workload(study.target, data)
    images = len(data.names) * len(data.lq)
    seconds = ABLATION * ablations * images * work.restoration
    if seconds >= LONG:
        counts = [counted(ablations, "ablation"), counted(images, "image")]
        finished = len(list(Path(options.output, PARTS).glob("*.part")))
        note(announcement(counts, seconds, f"--measured {4 * options.measured}", finished))


def announce_derivation(network: nn.Module, channels: int, options: Any, patch: int) -> None:
    """Note the time of deriving a baseline; nothing for a network that refuses the patch."""
    if options.quiet:
        return
    x = torch.rand(TIMED, channels, patch, patch).to(next(network.parameters()).dtype)
    with suppress(RuntimeError, ValueError):  # it is refused by name later
        forward = seconds_of(lambda: restore(network, x, options.pad)) / TIMED
        seconds = STEP * options.iterations * options.batch * forward
        if seconds >= LONG:
            quicker = f"--iterations {fewer_iterations(options.iterations)}"
            note(announcement([counted(options.iterations, "iteration")], seconds, quicker))


def announce_demo(options: Any) -> None:
    """Note the time of `faigfast demo`."""
    if options.quiet:
        return
    data = crops(photographs(KEPT_OUT), DEGRADATIONS, CROP)
    measured = data.without(ATTRIBUTED).part(MEASURED)
    pair, attributed = shipped_pair(), data.part(ATTRIBUTED)
    work = Workload(pair[1], measured, border=SCALE)
    work.attribute(Study(*pair, attributed, measured, SCALE, steps=options.steps), attributed)
    work.measure(count_masked(["faig"], len(DEGRADATIONS), len(FRACTIONS)), measured)
    # Fewer steps help the attribution alone.
    quicker = f"--steps {options.steps // 2}" if work.attribution > work.measuring else ""
    work.announce(options.output, quicker if options.steps > 1 else "")


def fewer(work: Workload, options: Any) -> str:
    """Name the option that leaves out crops of the longer part: attribution or measurement."""
    name = "attributed" if work.attribution > work.measuring else "measured"
    return f"--{name} {4 * options[name]}"


def fewer_iterations(iterations: int) -> int:
    """Give a third of the iterations, in hundreds where there are some."""
    third = max(1, iterations // 3)
    return third // 100 * 100 or third
