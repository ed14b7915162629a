"""`faigfast prune`: scores of output channels, for pruning libraries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faigfast.analysis.contrasts import Contrast, check_contrasts
from faigfast.analysis.pruning import channel_importance, importance_data_frame
from faigfast.analysis.report.captioned import channels_figure
from faigfast.cli.remarks import describe_attributed
from faigfast.cli.study import open_study, publish
from faigfast.io.lock import alone_in
from faigfast.io.tensor_file import write_safetensors


def run(options: Any, words: Sequence[str]) -> None:
    """Score, print the summary of each layer, and write all channels."""
    keep = Contrast.parse(options.keep) if options.keep else None
    study = open_study(options)
    if keep is not None:
        check_contrasts([keep], tuple(study.measured.lq))
    with alone_in(options.output):
        result = study.attribution()
        scores = channel_importance(study.target, result, keep, options.reduce)
        write_safetensors(
            Path(options.output) / "channels.safetensors",
            {name or "network": values for name, values in scores.items()},
        )
        remark = (
            "channels.safetensors holds the score of every output channel under its layer's name; "
            "faigfast.analysis.pruning gives them to torch-pruning and torch.nn.utils.prune."
        )
        data_frames = {"channels": importance_data_frame(scores)}
        described = describe_attributed(study)
        figures = {"channels": channels_figure(scores, described)}
        publish(options, words, "prune", data_frames, figures, [remark, described])
