"""The options of the analysis commands."""

from collections.abc import Callable

from faigfast.cli.common_options import (
    Add,
    degraded_images,
    figure_options,
    objective,
    own_network,
    pair_keys,
    quiet,
    weight_options,
)

DEGRADED = "blur=2 noise=0.1"


def number(text: str) -> float:
    """Read a number, finite or not; the command itself refuses infinities."""
    return float(text)


def _study(
    add: Add,
    output: str,
    steps: int = 20,
    figures: tuple[str, ...] = ("svg",),
    degraded: str = DEGRADED,
) -> None:
    """Pair, photographs, the points of the line, and figures."""
    _measured_pair(add, output, figures, degraded)
    add(
        "--steps",
        type=int,
        default=steps,
        help="points of the line between the two networks, for crops of every size",
    )


def _measured_pair(
    add: Add, output: str, figures: tuple[str, ...] = ("svg",), degraded: str = DEGRADED
) -> None:
    """Pair, photographs, figures and the folder of results."""
    add(
        "baseline",
        type=str,
        nargs="?",
        help="checkpoint of the baseline; default the pair that ships with the package",
    )
    add("target", type=str, nargs="?", help="checkpoint of the target, of the same architecture")
    add(
        "--pair",
        type=str,
        metavar="NAME",
        help="instead, a shipped pair, such as srcnn-24x4-x2",
    )
    add(
        "--gt",
        type=str,
        metavar="FOLDER",
        help="ground-truth images; default the photographs kept out of the shipped pair's training",
    )
    degraded_images(add, f"; default {degraded}")
    add("--output", type=str, default=output, metavar="FOLDER", help="receives the results")
    add("--crop", type=int, default=96, help="side of the ground-truth crops in pixels")
    objective(add)
    add("--backend", type=str, default="auto", help="auto, or one that doctor lists")
    own_network(add)
    weight_options(add)
    pair_keys(add)
    figure_options(add, figures)
    add(
        "--overwrite",
        action="store_true",
        help="compute again what is finished in --output; remove another run",
    )
    quiet(add)


def _ranked(add: Add) -> None:
    """Options of the rankings."""
    add("--attributed", type=int, default=4, metavar="N", help="every Nth crop is attributed")
    add(
        "--attribution",
        type=str,
        metavar="FILE",
        help="instead, scores.safetensors of faigfast attribute, of the same degradations",
    )
    add(
        "--contrast",
        type=str,
        nargs="+",
        metavar="[NAME=]A[:B,C]",
        help="rankings: the score of A less the mean of B and C; default each degradation less all "
        "others",
    )


def _measured(add: Add, measured: int = 1) -> None:
    """Options of the measured crops."""
    add(
        "--measured",
        type=int,
        default=measured,
        metavar="N",
        help="every Nth is measured, of the crops that are not attributed here",
    )
    add("--border", type=int, help="pixels left out of measurements on every side; default scale")


def _fractions(add: Add) -> None:
    add(
        "--fractions",
        type=float,
        nargs="+",
        default=[0.01, 0.03, 0.05, 0.1],
        metavar="SHARE",
        help="shares of all filters, in (0, 1]",
    )


def _fraction(add: Add, default: float, what: str) -> None:
    add("--fraction", type=float, default=default, metavar="SHARE", help=f"share of {what}")


def _biases(add: Add) -> None:
    add(
        "--biases",
        action="store_true",
        help="move the biases of output channels whose filters are all in a set too",
    )


def _mask(add: Add) -> None:
    _study(add, "faigfast-mask")
    _ranked(add)
    _measured(add)
    _fractions(add)
    add(
        "--methods",
        type=str,
        nargs="+",
        default=["faig", "input", "change", "relative", "gradient", "magnitude", "signed"],
        metavar="NAME",
        help="who ranks the filters; random ones, and random ones of the same layers, are always "
        "measured",
    )
    add(
        "--by",
        choices=["kernel", "channel", "layer"],
        default="kernel",
        help="what goes back to the baseline as a whole",
    )
    _biases(add)
    add(
        "--metrics",
        type=str,
        nargs="+",
        default=["psnr", "psnr_y", "ssim", "ssim_y", "difference", "difference_authors"],
        metavar="NAME",
        help="what is measured",
    )
    add(
        "--sets",
        type=str,
        nargs="+",
        metavar="NAME=FILE",
        help="instead, measure these index files, ours or the authors'",
    )


def _modulate(add: Add) -> None:
    _study(add, "faigfast-modulate")
    _ranked(add)
    _measured(add)
    _fraction(add, 0.05, "the filters that are modulated")
    add(
        "--strengths",
        type=number,
        nargs="+",
        default=[0, 0.25, 0.5, 0.75, 1, 1.25, 1.5],
        metavar="S",
        help="0 is the baseline's filters, 1 the target's, above 1 extrapolates",
    )
    _biases(add)
    add("--grid", action="store_true", help="all combinations of strengths, not one at a time")
    add(
        "--set",
        type=str,
        nargs="+",
        metavar="NAME=S",
        help="strengths by contrast of the network that --save writes",
    )
    add(
        "--save",
        type=str,
        metavar="FILE",
        help="receives the network of --set under the keys of the target's checkpoint",
    )


def _predict(add: Add) -> None:
    _study(add, "faigfast-predict", steps=8)
    add("--measured", type=int, default=1, metavar="N", help="every Nth crop is predicted")
    add(
        "--learn",
        type=str,
        metavar="FOLDER",
        help="photographs to learn from, degraded as --degrade says; default with the shipped "
        "photographs those of the pair's training, else each photograph is predicted from the "
        "others",
    )
    add(
        "--learned",
        type=int,
        default=30,
        metavar="N",
        help="crops that are learned from, spread over the photographs",
    )
    add(
        "--images",
        type=str,
        metavar="FOLDER",
        help="besides, say what degradation these images have, of which no ground truth is known",
    )
    _fraction(add, 0.05, "the filters that make a signature's set, for matching by overlap")


def _retrain(add: Add) -> None:
    _study(add, "faigfast-retrain")
    _ranked(add)
    _measured(add)
    add(
        "--train",
        type=str,
        metavar="FOLDER",
        help="photographs to train on; default, with the shipped photographs, those of the pair's "
        "training",
    )
    _fraction(add, 0.05, "the filters that learn")
    add(
        "--sets",
        type=str,
        nargs="+",
        metavar="NAME=FILE",
        help="index files by degradation, ours or the authors', in place of what is attributed",
    )
    add("--iterations", type=int, default=300, help="of each training")
    add("--rate", type=float, default=2e-3, help="learning rate at the start")
    add("--batch", type=int, default=8, help="patches in an iteration")
    add("--patch", type=int, default=24, help="side of a low-resolution patch in pixels")
    add("--optimizer", type=str, default="Adam", help="a class of torch.optim")


def _locations(add: Add) -> None:
    _study(add, "faigfast-locations")
    _ranked(add)
    _measured(add)
    _fraction(add, 0.01, "the filters that are discovered")
    add("--draws", type=int, default=3, help="of each random experiment")


def _overlap(add: Add) -> None:
    _study(add, "faigfast-overlap")
    _ranked(add)
    _fraction(add, 0.01, "the filters in a set")


def _distribution(add: Add) -> None:
    _study(add, "faigfast-distribution")
    _ranked(add)
    _fraction(add, 0.01, "the filters in a set")
    add("--heads", type=int, default=12, help="kernels of each ranking that are drawn")


def _prune(add: Add) -> None:
    _study(add, "faigfast-prune")
    _ranked(add)
    add("--reduce", choices=["sum", "mean", "max"], default="sum", help="over a channel's filters")
    add(
        "--keep",
        type=str,
        metavar="[NAME=]A[:B,C]",
        help="the ability to be kept, such as blur: for its scores alone; default the scores of "
        "all degradations, summed",
    )


def _ablate(add: Add) -> None:
    _measured_pair(add, "faigfast-ablate")
    add("--measured", type=int, default=8, metavar="N", help="every Nth crop is measured")
    add(
        "--by",
        choices=["kernel", "channel"],
        default="kernel",
        help="ablate one filter at a time, or all filters of an output channel together",
    )
    add(
        "--biases",
        action="store_true",
        help="with --by channel, put the channel's bias back too",
    )
    add(
        "--filters",
        type=str,
        metavar="FILE",
        help="ablate the filters of this index file alone, ours or the authors'; default all",
    )
    add(
        "--top",
        type=float,
        nargs="+",
        default=[0.01],
        metavar="SHARE",
        help="write index files of the shares of all filters whose ablation costs most",
    )
    add("--memory", type=int, metavar="BYTES", help="for activations")


def _report(add: Add) -> None:
    _study(add, "faigfast-report", figures=())
    _ranked(add)
    _measured(add, 2)
    add("--title", type=str, help="of the page")
    add(
        "--train",
        type=str,
        metavar="FOLDER",
        help="photographs to learn signatures and to retrain on; default, with the shipped "
        "photographs, those of the pair's training; without any, retraining is left out",
    )
    add("--learned", type=int, default=30, metavar="N", help="crops that signatures come from")
    add("--predicted", type=int, default=20, metavar="N", help="crops that are predicted")
    add("--iterations", type=int, default=150, help="of each retraining")


FINDINGS: dict[str, tuple[str, Callable[[Add], None]]] = {
    "mask": (
        "Put the top filters of FAIG and its rivals back to the baseline's and measure what is "
        "lost. Interrupted, the same command goes on.",
        _mask,
    ),
    "modulate": (
        "Restore with the discovered filters at strengths from baseline to target and beyond; save "
        "such a network.",
        _modulate,
    ),
    "predict": (
        "Tell an image's degradation and level, without ground truth, from the filters it needs.",
        _predict,
    ),
    "retrain": (
        "Train the discovered filters alone from the baseline, as many random ones, and all. "
        "Interrupted, the same command goes on.",
        _retrain,
    ),
    "locations": (
        "Ask whether the discovered filters' weights, locations and connections matter.",
        _locations,
    ),
    "overlap": (
        "Compare the filters of several degradations, and of several levels such as blur-1=blur=1 "
        "blur-3=blur=3.",
        _overlap,
    ),
    "distribution": (
        "Show where discovered filters lie and what became of them between baseline and target.",
        _distribution,
    ),
    "prune": ("Score output channels for pruning.", _prune),
    "ablate": (
        "Put every filter back to the baseline's alone and measure what is lost: the ground truth "
        "that attributions approximate. Interrupted, the same command goes on.",
        _ablate,
    ),
    "report": (
        "Run the analyses from mask to prune on a pair and photographs, and write one page. "
        "Interrupted, the same command goes on.",
        _report,
    ),
}
