"""The options of every command, without the imports that the commands need."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from faigfast.cli.common_options import (
    RECIPES,
    Add,
    degraded_images,
    figure_options,
    objective,
    own_architecture,
    own_network,
    pair_keys,
    quiet,
    weight_options,
)
from faigfast.cli.dial_options import HELP as DIAL_HELP
from faigfast.cli.dial_options import dial
from faigfast.cli.finding_options import FINDINGS
from faigfast.cli.sweep_options import HELP as SWEEP_HELP
from faigfast.cli.sweep_options import sweep

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def size(text: Any) -> int:
    """Read bytes from "2GB", "1.5 GiB" or "2000000"; units: kB, MB, GB, KiB, MiB, GiB, any case.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text is something else.
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if not match or match[2] not in UNITS:
        raise ArgumentTypeError(
            f"memory is {text!r}; expected bytes, or a number of kB, MB, GB, KiB, MiB or GiB"
        )
    return int(Fraction(match[1]) * UNITS[match[2]])


def _attribute(add: Add) -> None:
    add("baseline", type=str, help="checkpoint of the baseline, .pth, .safetensors or .param")
    add("target", type=str, help="checkpoint of the target, of the same architecture")
    add("--gt", type=str, required=True, metavar="FOLDER", help="ground-truth images")
    add("--output", type=str, required=True, metavar="FOLDER", help="receives the results")
    degraded_images(add)
    add(
        "--crop_to",
        type=int,
        default=1,
        metavar="M",
        help="crop degraded images to multiples of M pixels, and ground truths alike",
    )
    add(
        "--rule",
        type=str,
        default="averaged",
        help="averaged, left (the authors'), right, midpoint, graded, trapezoid, gauss-legendre or "
        "gauss-kronrod",
    )
    add(
        "--steps",
        type=int,
        help="nodes of the rule, with a tolerance the most of them; default 15, without kinks 6, "
        "and 24 where the estimated error asks for them; graded 16, left and right the "
        "authors' 100, others 20",
    )
    add("--tol", type=float, help="refine until the estimated relative error is at most this")
    add(
        "--tol_contrast",
        type=float,
        help="refine until the points leave at most this estimated relative error in the contrast",
    )
    add(
        "--overlap",
        type=float,
        help="refine until this estimated share of the best 1 %% of filters stays; both for every "
        "group of images of one size",
    )
    add(
        "--emulate",
        action="store_true",
        help="predict the left or right rule of STEPS nodes from 17 evaluations",
    )
    add(
        "--method",
        type=str,
        default="faig",
        help="what the scores are: faig, or a rival: input (integrated gradients along the input), "
        "change, relative, random, gradient, magnitude or signed",
    )
    objective(add)
    add(
        "--parameters",
        type=str,
        nargs="+",
        metavar="PATTERN",
        help="convolution weights to score, by name or pattern such as 'body.*'; default all",
    )
    add("--backend", type=str, default="auto", help="auto, or one that doctor lists")
    add(
        "--precision",
        type=str,
        default="auto",
        help="auto, fp64, fp32, bf16 (cpu: in gradients of convolutions) or fp16; with the backend "
        "triton also tf32, bf16x3",
    )
    add(
        "--devices",
        type=str,
        nargs="+",
        metavar="DEVICE",
        help="where, such as cuda:0 cuda:1, or all for every GPU: images are spread over them; "
        "default the CPU",
    )
    add(
        "--memory",
        type=size,
        metavar="SIZE",
        help="budget for activations, in bytes or with a unit such as 2GB or 1.5GiB; default a "
        "quarter of all, or four fifths of what is free",
    )
    add(
        "--top",
        type=float,
        nargs="*",
        default=[0.01],
        metavar="FRACTION",
        help="shares of the filters, in (0, 1], that get an index file of their own",
    )
    own_network(add)
    weight_options(add)
    pair_keys(add)
    figure_options(add, ())
    add(
        "--overwrite",
        action="store_true",
        help="compute again what is finished in --output; remove another run",
    )
    quiet(add)


def _train(add: Add) -> None:
    add("--output", type=str, required=True, metavar="FOLDER", help="receives the pair")
    add(
        "--folder",
        type=str,
        metavar="FOLDER",
        help="photographs to train on; default those in the wheels of scikit-image and -learn",
    )
    networks = ["srresnet", "srcnn", "edsr", "rrdbnet", "rcan", "swinir"]
    add("--network", choices=networks, default="srresnet", help="architecture")
    add("--width", type=int, default=32, help="channels (srcnn: of the first layer)")
    add(
        "--depth",
        type=int,
        default=8,
        help="residual blocks (srcnn: layers of twice the width; the paper's is 64 wide, 5 deep; "
        "rrdbnet: blocks of three dense blocks that grow by half the width; rcan: groups of two "
        "blocks; swinir: groups of two blocks with two heads, windows of 8)",
    )
    add("--scale", type=int, default=2, help="enlargement")
    both = {"nargs": 2, "metavar": ("BASELINE", "TARGET")}
    add("--iterations", type=int, default=[3000, 1200], help="of each training", **both)
    add("--rates", type=float, default=[5e-4, 2e-3], help="learning rates at the start", **both)
    add("--batch", type=int, default=16, help="patches in an iteration")
    add("--patch", type=int, default=32, help="side of a low-resolution patch in pixels")
    add(
        "--blur",
        type=float,
        nargs="*",
        metavar="SIGMA",
        help="in pixels; default 2, without --degrade",
    )
    add(
        "--noise",
        type=float,
        nargs="*",
        metavar="SIGMA",
        help="of range [0, 1]; default 0.1, without --degrade",
    )
    add(
        "--degrade",
        type=str,
        nargs="+",
        default=[],
        metavar="RECIPE",
        help=f"recipes to choose from: {RECIPES}",
    )
    add(
        "--probability",
        type=float,
        default=0.5,
        help="with which a patch of the target's training gets one of --degrade; otherwise, with "
        "which it is blurred, and made noisy",
    )
    add("--seed", type=int, default=0, help="of the first weights and of the patches")
    add("--overwrite", action="store_true", help="discard an earlier training in --output")
    add("--threads", type=int, help="of PyTorch; default its own choice")
    quiet(add)


def _baseline(add: Add) -> None:
    add("target", type=str, help="checkpoint of the target, .pth, .safetensors or .param")
    add(
        "--output",
        type=str,
        required=True,
        metavar="FILE",
        help="receives the baseline, under the target's keys; its record in a .json file beside it",
    )
    add(
        "--gt",
        type=str,
        metavar="FOLDER",
        help="photographs; default those in the wheels of scikit-image and -learn",
    )
    add("--scale", type=int, help="enlargement; default what the network says or shows")
    add("--iterations", type=int, default=500, help="the most steps")
    add(
        "--keep",
        type=str,
        nargs="+",
        default=[],
        metavar="RECIPE",
        help=f"degradations that the baseline goes on removing: {RECIPES}",
    )
    add(
        "--forget",
        type=str,
        nargs="+",
        metavar="RECIPE",
        help="degradations that it shall no longer remove; default noise and blur, as far as the "
        "target removes them and they are not to be kept",
    )
    add(
        "--ground_truth",
        choices=["photograph", "own_output"],
        default="photograph",
        help="what outputs are compared with; own_output, the target's own on clean input, for "
        "networks that were trained with a discriminator",
    )
    add("--rate", type=float, default=5e-4, help="learning rate at the start")
    add("--batch", type=int, default=8, help="patches in an iteration")
    add("--patch", type=int, default=32, help="side of a low-resolution patch in pixels")
    add(
        "--pad",
        type=int,
        default=0,
        metavar="K",
        help="pad inputs by K pixels of reflection on every side, for networks that lose pixels "
        "(waifu2x: 7, Real-CUGAN x2: 18)",
    )
    add("--seed", type=int, default=0, help="of patches and noise")
    add("--recursive", action="store_true", help="include the subfolders of --gt")
    add(
        "--alpha",
        choices=["refuse", "drop"],
        default="refuse",
        help="what becomes of transparent pixels; drop keeps the colours below them",
    )
    own_architecture(add)
    weight_options(add)
    add("--overwrite", action="store_true", help="discard an earlier run; replace the file")
    add("--threads", type=int, help="of PyTorch; default its own choice")
    quiet(add)


def _demo(add: Add) -> None:
    add(
        "--output",
        type=str,
        default="faigfast-demo",
        metavar="FOLDER",
        help="receives the report",
    )
    add("--steps", type=int, default=20, help="points of the line between the two networks")
    figure_options(add, ())
    quiet(add)


def _bench(add: Add) -> None:
    add(
        "--workloads",
        type=str,
        nargs="+",
        metavar="NAME",
        help="such as srresnet-48x4 (family-size×images), or pair-folder (14 images of 14 sizes), "
        "or all; default a small and a real one",
    )
    add(
        "--contenders",
        type=str,
        nargs="+",
        metavar="NAME",
        help="who takes part, such as loop, faigfast (the backend auto) or faigfast-reference; "
        "default everyone",
    )
    add("--steps", type=int, default=8, help="points of the line between the two networks")
    add(
        "--repeats",
        type=int,
        default=5,
        help="runs, and first runs in processes of their own, of which the median is taken",
    )
    add(
        "--to_accuracy",
        action="store_true",
        help="instead, on trained pairs and photographs: the time to the accuracy of the authors' "
        "100 points",
    )
    add(
        "--cost",
        action="store_true",
        help="instead, what a call costs by points and images, whatever their number, and what "
        "the first call on a pair costs beyond it",
    )
    add(
        "--kernels",
        action="store_true",
        help="instead, the C++ convolution over channels and sizes, beside torch's and the "
        "processor's peak",
    )
    add(
        "--output",
        type=str,
        metavar="FILE",
        help="receives all figures as JSON, or the table if it ends in .md",
    )
    quiet(add)


def _accuracy(add: Add) -> None:
    add(
        "--pairs",
        type=str,
        nargs="+",
        metavar="NAME",
        help="shipped or published pairs, such as srresnet-32x8-x2; default all that are installed",
    )
    add("--size", type=int, help="side of the ground-truth crops in pixels, default 48")
    add(
        "--by_size",
        action="store_true",
        help="instead, on crops of several sizes: the authors' 100 points and the defaults",
    )
    add(
        "--output",
        type=str,
        metavar="FILE.md",
        help="receives the tables; of a document that has them already only they change",
    )
    quiet(add)


def _style(add: Add) -> None:
    """Take no options."""


def _doctor(add: Add) -> None:
    add("--json", action="store_true", help="print JSON")


COMMANDS: dict[str, tuple[str, Callable[[Add], None]]] = {
    "attribute": (
        "Rank the filters that remove degradations, from two checkpoints and images. Interrupted, "
        "the same command goes on.",
        _attribute,
    ),
    "train": (
        "Train a baseline on clean images, then the target on degraded ones. Interrupted, the same "
        "command goes on.",
        _train,
    ),
    "baseline": (
        "Derive the baseline of one checkpoint by training it on with clean photographs. "
        "Interrupted, the same command goes on.",
        _baseline,
    ),
    "demo": ("Attribute, mask and report with the shipped pair on photographs.", _demo),
    "bench": ("Compare the speed of faigfast with the loops it replaces.", _bench),
    "accuracy": (
        "Compare the quadrature rules, and their own estimates, with a converged one.",
        _accuracy,
    ),
    **FINDINGS,
    "dial": (DIAL_HELP, dial),
    "sweep": (SWEEP_HELP, sweep),
    "style": (
        "Print the style of the figures, a file of matplotlib to change and to give to --style.",
        _style,
    ),
    "doctor": ("Say what is built and found here, and why anything is missing.", _doctor),
}
