"""`faigfast retrain`: the discovered filters alone learn, from the baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faigfast
from faigfast.analysis.report.captioned import retraining_figure
from faigfast.analysis.retraining import retrain_all, retraining_data_frame, retraining_sentences
from faigfast.cli.estimate import announce_retrain
from faigfast.cli.remarks import describe, describe_measured
from faigfast.cli.study import (
    measured_alone,
    note_small,
    open_pair,
    open_study,
    parse_recipes,
    publish,
    read_sets,
    sizes_of,
    target_file,
    training_photographs,
)
from faigfast.cli.weights import check_savable, pair_keys
from faigfast.io.lock import alone_in
from faigfast.models.output_shape import image_channels
from faigfast.training.trainer import Schedule


def run(options: Any, words: Sequence[str]) -> None:
    """Retrain for every degradation and measure."""
    if options.lq:
        raise ValueError("lq is given; expected --degrade, by which training patches are made too")
    if options.downsampling != "bilinear":
        raise ValueError("downsampling is bicubic; training patches are bilinear alone")
    schedule = Schedule(options.iterations, options.rate, options.batch, seed=options.seed)
    pair = open_pair(options)
    check_savable(options, pair[1], target_file(options))
    images = training_photographs(options.train, "train", options, image_channels(pair[1]))
    sets = read_sets(options.sets or (), pair)
    if sets:
        options = measured_alone(options, "sets")
    study = open_study(options, pair=pair)
    recipes = parse_recipes(options, study.target)
    side = options.patch * next(iter(recipes.values())).scale
    small = note_small(sizes_of(images), side, "patch", options.quiet)
    of = ", ".join(name for name in images if name not in small)
    with alone_in(options.output):
        announce_retrain(study, options, len(sets or study.contrasts))
        parts = retrain_all(
            study, images, recipes, schedule, Path(options.output),
            fraction=options.fraction, sets=sets, patch=options.patch, optimizer=options.optimizer,
            overwrite=options.overwrite,
        )  # fmt: skip
        for part in parts:
            file = Path(options.output) / f"{part.degradation}-discovered.safetensors"
            network = part.networks["discovered"]
            faigfast.save_model(network, file, like=target_file(options), key=pair_keys(options)[1])
        remark = (
            f"{options.iterations} iterations of {options.optimizer} at {options.rate:g}, batches "
            f"of {options.batch} patches of {options.patch}×{options.patch} low-resolution pixels "
            f"from {of}; all of one degradation."
        )
        described = (describe_measured if sets else describe)(study)
        publish(
            options,
            words,
            "retrain",
            {"retraining": retraining_data_frame(parts)},
            {"retraining": retraining_figure(parts, f"{remark} {described}")},
            [
                *retraining_sentences(parts),
                remark,
                described,
            ],
        )
