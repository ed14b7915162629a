"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

Add = Callable[..., Any]


def degraded_images(add: Add, default: str = "") -> None:
    """Options of the degraded images."""
    add(
        "--lq",
        type=str,
        nargs="+",
        metavar="NAME=FOLDER",
        help="degraded images by name of the degradation, matched with --gt by file name",
    )
    add(
        "--degrade",
        type=str,
        nargs="+",
        metavar="NAME=RECIPE",
        help="or degrade --gt by recipe: blur=SIGMA, noise=SIGMA, blur=SIGMA+noise=SIGMA or clean; "
        f"without a NAME a recipe is named after what it holds{default}",
    )
    add("--scale", type=int, help="enlargement; by default what images or network say")
    add(
        "--downsampling",
        choices=["bilinear", "bicubic"],
        default="bilinear",
        help="of --degrade; bilinear is what the authors' images are",
    )
    add("--seed", type=int, default=0, help="of the noise of --degrade")


def own_network(add: Add) -> None:
    """Options of an architecture outside the zoo."""
    add(
        "--into",
        type=str,
        metavar="MODULE:FACTORY",
        help="your own architecture: what builds it, importable from the current folder",
    )
    add("--into_kwargs", type=dict, default={}, help="arguments of the factory, as JSON")


def quiet(add: Add) -> None:
    """Option without progress bars and notes."""
    add("--quiet", action="store_true", help="no progress bars and no notes")
