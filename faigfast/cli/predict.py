"""`faigfast predict`: which degradation an image has, without its ground truth."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from faigfast.analysis.data_frames import frame
from faigfast.analysis.evaluation import restore
from faigfast.analysis.prediction import MATCHES, own_scores
from faigfast.analysis.prediction_trials import LEVELS, try_predictions
from faigfast.analysis.report.figures import matrix
from faigfast.cli.run_folder import alone_in
from faigfast.cli.study import learned_crops, open_study, publish, read_folder, training_photographs
from faigfast.models.state import blaming


def run(options: Any, words: Sequence[str]) -> None:
    """Learn signatures, try them on other photographs, and predict images of a folder."""
    if options.learned < 2:
        raise ValueError(f"learned is {options.learned}; expected at least 2 crops")
    if options.lq and options.learn:
        raise ValueError("lq and --learn are given; expected --degrade, which both are made by")
    if not options.lq and not options.degrade:
        options.degrade = [f"{name}={recipe}" for name, recipe in LEVELS.items()]
    unseen = read_folder(options.images) if options.images else {}
    lessons = {}
    if options.learn or options.gt is None:
        lessons = training_photographs(options.learn, options.gt, "learn")
    study = open_study(options)
    pair = study.baseline, study.target
    _check_images(study.target, unseen)
    shared = {
        "steps": study.steps,
        "store": study.store,
        "progress": study.progress,
        **study.options,
    }
    with alone_in(options.output):
        taught = None
        how = "each photograph from signatures of the others"
        if lessons:
            taught = learned_crops(options, lessons, options.degrade, study.target)
            of = ", ".join(dict.fromkeys(taught.photographs))
            how = f"learned from {len(taught.names)} crops of {of}"
        signatures, trials = try_predictions(
            *pair, study.kept, taught, fraction=options.fraction, **shared
        )
        tables = {f"prediction by {t.match}": t.frame() for t in trials}
        tables |= {f"confusion by {t.match}": t.confusion_frame() for t in trials}
        figures = {
            f"confusion by {t.match}": matrix(
                t.confusion(), t.labels, t.labels, f"by {t.match}, %", ("is", "taken for")
            )
            for t in trials
        }
        if unseen:
            rows = []
            for name, image in unseen.items():
                shares = own_scores(*pair, image[None], title=f"predicting {name}", **shared)
                for match in MATCHES:
                    (found,) = signatures.predict(shares, match)
                    rows.append(
                        {
                            "image": name,
                            "match": match,
                            "degradation": found.degradation,
                            "level": found.level,
                            "margin": found.margin,
                        }
                    )
            tables["predicted images"] = frame(rows)
        remark = (
            f"{len(study.kept.names)} crops of {options.crop}×{options.crop} of "
            f"{', '.join(dict.fromkeys(study.kept.photographs))}; {how}. Attributed against the "
            "target's own output. Intervals are Wilson's, over crops treated as independent."
        )
        publish(options, words, "predict", tables, figures, [remark])


def _check_images(network: nn.Module, images: dict[str, Tensor]) -> None:
    """Refuse images that the network does not take, before anything is learned."""
    for name, image in images.items():
        sides = f"{list(image.shape)}"
        with blaming(f"the network does not take image {name!r} {sides}", Exception):
            restore(network, image[None])
