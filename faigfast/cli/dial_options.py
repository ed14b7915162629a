"""The options of `faigfast dial`."""

from typing import Any

from faigfast.cli.common_options import Add
from faigfast.cli.finding_options import _measured, _ranked, _study, number


def dial(add: Add) -> None:
    """Target, photographs, and how the baseline is derived and the filters are chosen."""

    def all_but_networks(name: str, **options: Any) -> None:
        if name not in ("baseline", "target"):
            add(name, **options)

    add(
        "target",
        type=str,
        nargs="?",
        help="checkpoint of the network; default the shipped pair's, with its own baseline",
    )
    add(
        "--baseline",
        type=str,
        metavar="FILE",
        help="checkpoint of a baseline; default one that is derived from the target",
    )
    _study(all_but_networks, "faigfast-dial", degraded="noise=0.1, and always clean")
    _ranked(add)
    _measured(add)
    add(
        "--strengths",
        type=number,
        nargs="+",
        default=[0, 0.25, 0.5, 0.75, 1],
        metavar="S",
        help="of the curve and of the checkpoints: 0 the ability is off, 1 the target",
    )
    add(
        "--fractions",
        type=float,
        nargs="+",
        default=[0.01, 0.02, 0.03, 0.05, 0.1],
        metavar="SHARE",
        help="shares of all filters, in (0, 1], of which the smallest that undoes enough is taken",
    )
    add(
        "--undo",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="share of the target's gain over the baseline that strength 0 is to undo",
    )
    add(
        "--train",
        type=str,
        metavar="FOLDER",
        help="photographs that the baseline is derived on; default the crops of --gt that are "
        "attributed, without --gt those of the shipped pair's training",
    )
    add("--iterations", type=int, default=500, help="the most steps of deriving the baseline")
    add("--rate", type=float, default=5e-4, help="learning rate of deriving the baseline")
    add("--batch", type=int, default=8, help="patches in a step of deriving the baseline")
    add(
        "--ground_truth",
        choices=["photograph", "own_output"],
        default="photograph",
        help="what deriving the baseline compares with; own_output for networks that were trained "
        "with a discriminator",
    )


HELP = (
    "Turn what a network removes down: find the filters that remove it, and write them as a dial. "
    "Interrupted, the same command goes on."
)
