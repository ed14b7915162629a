"""`faigfast predict`: which degradation an image has, without its ground truth."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from faigfast.analysis.data_frames import data_frame
from faigfast.analysis.evaluation import restore
from faigfast.analysis.prediction import MATCHES, own_output_scores
from faigfast.analysis.prediction_trials import LEVELS, try_predictions
from faigfast.analysis.report.captioned import confusion_figure
from faigfast.cli.study import (
    learned_crops,
    open_pair,
    open_study,
    publish,
    read_folder,
    training_photographs,
)
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.models.output_shape import image_channels
from faigfast.models.state import blaming


def run(options: Any, words: Sequence[str]) -> None:
    """Learn signatures, try them on other photographs, and predict images of a folder."""
    if options.learned < 2:
        raise ValueError(f"learned is {options.learned}; expected at least 2 crops")
    if options.lq and options.learn:
        raise ValueError("lq and --learn are given; expected --degrade, which both are made by")
    if not options.lq and not options.degrade:
        options.degrade = [f"{name}={recipe}" for name, recipe in LEVELS.items()]
    pair = open_pair(options)
    channels = image_channels(pair[1])
    unseen = read_folder(options.images, options, channels) if options.images else {}
    teaching_photographs = {}
    if options.learn or options.gt is None:
        teaching_photographs = training_photographs(options.learn, "learn", options, channels)
    study = open_study(options, pair=pair)
    _check_images(study.target, unseen, options.pad)
    shared = {
        "steps": study.steps,
        "finished_parts": study.finished_parts,
        "progress": study.progress,
        **study.options,
    }
    with alone_in(options.output):
        teaching_crops = None
        how = "each photograph from signatures of the others"
        if teaching_photographs:
            teaching_crops = learned_crops(
                options, teaching_photographs, options.degrade, study.target
            )
            of = ", ".join(dict.fromkeys(teaching_crops.photographs))
            how = f"learned from {counted(len(teaching_crops.names), 'crop')} of {of}"
        signatures, prediction_trials = try_predictions(
            *pair, study.measured, teaching_crops, fraction=options.fraction, **shared
        )
        data_frames = {f"prediction by {t.match}": t.to_frame() for t in prediction_trials}
        data_frames |= {
            f"confusion by {t.match}": t.confusion_data_frame() for t in prediction_trials
        }
        if unseen:
            rows = []
            for name, image in unseen.items():
                shares = own_output_scores(*pair, image[None], title=f"predicting {name}", **shared)
                for match in MATCHES:
                    (prediction,) = signatures.predict(shares, match)
                    rows.append(
                        {
                            "image": name,
                            "match": match,
                            "predicted_degradation": prediction.degradation,
                            "predicted_level": float(prediction.level or "nan"),
                            "margin": prediction.margin,
                        }
                    )
            data_frames["predicted images"] = data_frame(rows)
        remark = (
            f"{counted(len(study.measured.names), 'crop')} of {options.crop}×{options.crop} of "
            f"{', '.join(dict.fromkeys(study.measured.photographs))}; {how}. Attributed against "
            "the target's own output. Intervals are Wilson's, over crops treated as independent."
        )
        figures = {
            f"confusion by {t.match}": confusion_figure(t, remark) for t in prediction_trials
        }
        publish(options, words, "predict", data_frames, figures, [remark])


def _check_images(network: nn.Module, images: dict[str, Tensor], pad: int) -> None:
    """Refuse images that the network does not take, before anything is learned."""
    for name, image in images.items():
        sides = f"{list(image.shape)}"
        with blaming(f"the network does not take image {name!r} {sides}", Exception):
            restore(network, image[None], pad)
