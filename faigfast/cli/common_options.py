"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

Add = Callable[..., Any]

DTYPES = ("float64", "float32", "bfloat16", "float16")  # a test compares them with the zoo's

# Without importing torch; a test compares the steps with the grammar's.
RECIPES = (
    "clean, or steps joined by + such as blur=2+noise=0.1+jpeg=40: blur=SIGMA, "
    "anisotropic=SIGMA_X:SIGMA_Y[:ANGLE], motion=LENGTH[:ANGLE], defocus=RADIUS, "
    "sinc=CUTOFF[:SIZE], resize=FACTOR[:METHOD], noise=SIGMA, gray-noise=SIGMA, poisson=SCALE, "
    "speckle=SIGMA, salt-and-pepper=SHARE, jpeg=QUALITY, webp=QUALITY, realesrgan, down (the "
    "down-sampling, by default before the first step that is no blur)"
)


def degraded_images(add: Add, default: str = "") -> None:
    """Options of the images, and of what a network is given of them."""
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
    add(
        "--lq_name",
        type=str,
        metavar="PATTERN",
        help="names of the files of --lq, {} for the name of the ground truth, such as '{}x2'; by "
        "default the same names, or else a pattern of published data sets",
    )
    add("--recursive", action="store_true", help="include the subfolders of --gt and --lq")
    add(
        "--alpha",
        choices=["refuse", "drop"],
        default="refuse",
        help="what becomes of transparent pixels; drop keeps the colours below them",
    )
    add(
        "--pad",
        type=int,
        default=0,
        metavar="K",
        help="pad degraded images by K pixels of reflection on every side, and take the middle of "
        "the output: for networks that lose pixels (waifu2x: 7, Real-CUGAN x2: 18)",
    )


def own_architecture(add: Add) -> None:
    """Options of an architecture outside the zoo."""
    add(
        "--into",
        type=str,
        metavar="MODULE:FACTORY",
        help="your own architecture: what builds it, importable from the current folder",
    )
    add("--into_kwargs", type=dict, default={}, help="arguments of the factory, as JSON")


def own_network(add: Add) -> None:
    """Options of an architecture outside the zoo, and of branches to merge."""
    own_architecture(add)
    add(
        "--fuse",
        type=str,
        metavar="MODULE:FUNCTION",
        help="your own function that merges the branches of a network, applied to both networks "
        "first, importable from the current folder",
    )


def objective(add: Add) -> None:
    """Option of the loss that is attributed."""
    add(
        "--objective",
        type=str,
        default="squared_error",
        metavar="NAME",
        help="loss: squared_error, absolute_error, charbonnier, gradient, laplacian, ssim, or your "
        "own MODULE:FUNCTION of (output, gt), importable from the current folder",
    )


def weight_options(add: Add) -> None:
    """Options of every command that reads checkpoints."""
    add(
        "--key",
        type=str,
        metavar="NAME",
        help="entry of the checkpoints, such as params or generator.ema; default an average of "
        "weights (params_ema, ema) before params, state_dict and others",
    )
    add(
        "--dtype",
        choices=DTYPES,
        help="type of the weights; default the files', float32 where a file mixes types",
    )
    add(
        "--noise_level",
        type=float,
        metavar="SIGMA",
        help="standard deviation of the noise for pixels in [0, 1], of networks that take it "
        "beside the image (DRUNet, FFDNet); default 15/255",
    )


def pair_keys(add: Add) -> None:
    """Options of every command that reads two checkpoints, beside `weight_options`."""
    for role in ("baseline", "target"):
        add(
            f"--{role}_key",
            type=str,
            metavar="NAME",
            help=f"entry of the {role}'s checkpoint, where the two differ; default --key",
        )


def figure_options(add: Add, default: tuple[str, ...] = ("svg",)) -> None:
    """Options of figures for papers."""
    add(
        "--figures",
        nargs="+",
        choices=["pdf", "svg", "png"],
        default=list(default),
        help="formats of the figures, each of which is drawn for a column and for a page, with its "
        f"caption in a .txt file; default {' '.join(default) or 'no figures'}",
    )
    add(
        "--figure_widths",
        type=float,
        nargs=2,
        default=[3.3, 6.9],
        metavar=("COLUMN", "PAGE"),
        help="widths of the figures in inches",
    )
    add(
        "--style",
        type=str,
        metavar="FILE",
        help="style file of matplotlib that goes over that of the figures, which `faigfast style` "
        "prints",
    )


def quiet(add: Add) -> None:
    """Option without progress bars and notes."""
    add("--quiet", action="store_true", help="no progress bars and no notes")
