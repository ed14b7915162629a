"""`faigfast train`: a baseline and a target from photographs, and how well they restore."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import faigfast
from faigfast.analysis.evaluation import crops, evaluate, mean_and_interval
from faigfast.cli.other_run import remember
from faigfast.cli.output import command_line, note, writable_folder
from faigfast.data.degradations import Degradation
from faigfast.data.folders import image_files
from faigfast.data.images import read_image
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs
from faigfast.io.atomic import write_json, write_text
from faigfast.io.fitted_table import fitted
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.training.trainer import BLUR, NOISE, Schedule, train_pair
from faigfast.zoo import EDSR, RCAN, RRDBNet, SRCNNStyle, SRResNet, SwinIR

CROP = 96  # side of a kept-out ground truth, in pixels


def run(options: Any, words: Sequence[str]) -> None:
    """Train the pair, or resume it; then measure it on photographs kept out of training."""
    folder = writable_folder(options.output)
    images = _read_folder(options.folder) if options.folder else _shipped(TRAINING, options.quiet)
    kept_out = _shipped(KEPT_OUT, options.quiet)
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"threads is {options.threads}; expected a positive integer")
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    schedules = (
        Schedule(iterations, rate, batch=options.batch, seed=options.seed)
        for iterations, rate in zip(options.iterations, options.rates, strict=True)
    )
    baseline, target = schedules
    degradations, (blur, noise) = _degradations(options), _strengths(options)
    with alone_in(folder):
        remember(folder / "baseline", options, options.overwrite)
        record = folder / "training.json"
        before = record.read_bytes() if record.exists() else None
        files = train_pair(
            folder,
            _network(options),
            images,
            scale=options.scale,
            baseline=baseline,
            target=target,
            blur=blur,
            noise=noise,
            recipes=options.degrade,
            probability=options.probability,
            patch=options.patch,
            overwrite=options.overwrite,
            progress=not options.quiet,
        )
        pair = faigfast.load_pair(*files)
        evaluation, text = _evaluate(pair, kept_out, degradations, options.scale)
        write_json(folder / "evaluation.json", evaluation)
        command = folder / "command.txt"
        if not command.exists() or record.read_bytes() != before:  # the command that made the pair
            write_text(command, command_line(words) + "\n")
        print(text)
        print(f"wrote {', '.join(file.name for file in files)} and evaluation.json in {folder}")


def _network(options: Any) -> nn.Module:
    """Build the architecture of --network with new weights."""
    width, depth, scale = options.width, options.depth, options.scale
    pairs = (2,) * depth
    if options.network == "srresnet":
        return SRResNet(width=width, blocks=depth, scale=scale)
    if options.network == "srcnn":
        return SRCNNStyle((width, *[2 * width] * depth), scale)
    if options.network == "edsr":
        return EDSR(width=width, blocks=depth, scale=scale)
    if options.network == "rrdbnet":
        return RRDBNet(width=width, blocks=depth, scale=scale, growth=max(1, width // 2))
    if options.network == "rcan":
        squeeze = min(16, width)
        return RCAN(width=width, groups=depth, blocks=2, scale=scale, squeeze=squeeze)
    # Masks of a small image keep the file small; masks of patches are computed.
    return SwinIR(width=width, depths=pairs, heads=pairs, scale=scale, image_size=16)


def _read_folder(path: str) -> dict[str, Tensor]:
    """All images of a folder [3, H, W] by file name."""
    return {file.name: read_image(file) for file in image_files(path).values()}


def _shipped(names: tuple[str, ...], quiet: bool) -> dict[str, Tensor]:
    """Read photographs from the wheels; a note names the missing."""
    images = photographs(names)
    missing = [name for name in names if name.partition(".")[0] not in images]
    if missing:
        note(f"without {', '.join(missing)}: pip install 'faigfast[data,sklearn]'", quiet)
    return images


def _strengths(options: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give --blur and --noise; by default those of the paper, none beside --degrade."""
    blur, noise = (
        default if value is None and not options.degrade else tuple(value or ())
        for value, default in ((options.blur, BLUR), (options.noise, NOISE))
    )
    return blur, noise


def _degradations(options: Any) -> dict[str, Degradation]:
    """Give no degradation, and each degradation of the training alone."""
    scale, (blur, noise) = options.scale, _strengths(options)
    return {
        "clean": Degradation(scale=scale),
        **{f"blur {sigma:g}": Degradation(blur=sigma, scale=scale) for sigma in blur},
        **{f"noise {sigma:g}": Degradation(noise=sigma, scale=scale) for sigma in noise},
        **{recipe: Degradation.parse(recipe, scale) for recipe in options.degrade},
    }


def _evaluate(
    pair: tuple[nn.Module, nn.Module],
    images: dict[str, Tensor],
    degradations: dict[str, Degradation],
    scale: int,
) -> tuple[dict[str, Any], str]:
    """Measure the PSNR of both networks on every crop: all figures, and a table of the means."""
    size = CROP - CROP % scale
    data = crops(images, degradations, size)
    baseline, target = (evaluate(network, data, border=scale) for network in pair)
    head, rows = ["degradation", "baseline, dB", "target, dB", "gain, dB"], []
    for name in degradations:
        values = (baseline[name], target[name], target[name] - baseline[name])
        cells = (mean_and_interval(value) for value in values)
        rows.append([name, *(f"{mean:.2f} ± {half:.2f}" for mean, half in cells)])
    measure = (
        f"PSNR (RGB, border {scale}) of {counted(len(data.names), 'crop')} of {size}×{size} from "
        f"{counted(len(images), 'photograph')} kept out of training ({', '.join(images)}); mean "
        "and 95 % confidence interval of crops treated as independent, narrower than that for new "
        "photographs"
    )
    figures = {
        "measure": measure,
        "crops": data.names,
        "psnr": {
            name: {"baseline": baseline[name].tolist(), "target": target[name].tolist()}
            for name in degradations
        },
        "mean_and_half_width": {
            name: {
                "baseline": mean_and_interval(baseline[name]),
                "target": mean_and_interval(target[name]),
                "gain": mean_and_interval(target[name] - baseline[name]),
            }
            for name in degradations
        },
    }
    return figures, f"{measure}\n\n{fitted(head, rows)}\n"
