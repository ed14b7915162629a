"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

Add = Callable[..., Any]

# Without importing torch; a test compares the steps with the grammar's.
RECIPES = (
    "clean, or steps joined by + such as blur=2+noise=0.1+jpeg=40: blur=SIGMA, "
    "anisotropic=SIGMA_X:SIGMA_Y[:ANGLE], motion=LENGTH[:ANGLE], defocus=RADIUS, "
    "sinc=CUTOFF[:SIZE], resize=FACTOR[:METHOD], noise=SIGMA, gray-noise=SIGMA, poisson=SCALE, "
    "speckle=SIGMA, salt-and-pepper=SHARE, jpeg=QUALITY, webp=QUALITY, realesrgan, down (the "
    "down-sampling, by default before the first step that is no blur)"
)


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
        help=f"or degrade --gt by recipe: {RECIPES}; without a NAME a recipe is named after what "
        f"it holds{default}",
    )
    add("--scale", type=int, help="enlargement; by default what images or network say")
    add(
        "--downsampling",
        choices=["bilinear", "bicubic"],
        default="bilinear",
        help="of --degrade; bilinear is what the authors' images are",
    )
    add("--seed", type=int, default=0, help="of the random numbers of --degrade")


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
