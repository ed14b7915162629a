"""`faigfast dial`: from one checkpoint, a small file that turns an ability down."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import faigfast
from faigfast.analysis.dial import CLEAN, METRICS, make_dials, noise_level_knob
from faigfast.analysis.dial_result import DialResult
from faigfast.analysis.modulation import check_strength
from faigfast.analysis.report.captioned import dial_figure, images_figure
from faigfast.analysis.report.dial_figures import dial_images
from faigfast.analysis.report.line import line_sentence
from faigfast.analysis.report.paper import file_stem
from faigfast.analysis.study import Study
from faigfast.analysis.undone import MEANING
from faigfast.cli.attribute import named_recipes
from faigfast.cli.estimate import announce_derivation, announce_dial
from faigfast.cli.figures import figure_files
from faigfast.cli.other_run import remember
from faigfast.cli.output import note, writable_folder
from faigfast.cli.own_code import own_network
from faigfast.cli.study import (
    check_shares,
    open_crops,
    open_pair,
    open_study,
    parse_recipes,
    publish,
    target_file,
    training_photographs,
)
from faigfast.cli.weights import loaded_target, pair_keys
from faigfast.integration.cautions import cautions
from faigfast.io.atomic import write_text
from faigfast.io.lock import alone_in
from faigfast.io.text_table import counted
from faigfast.models.output_shape import image_channels

DEFAULT_RECIPES = ("noise=0.1",)
PATCH = 32  # most pixels of a side of the low-resolution patches that a baseline is derived on


def run(options: Any, words: Sequence[str]) -> None:
    """Derive a baseline where none is given; attribute, choose filters, measure and write."""
    for strength in options.strengths:
        check_strength(strength, "--strengths")
    figure_files(options)
    check_shares(options.fractions)
    if not 0 < options.undo <= 1:
        raise ValueError(f"undo is {options.undo}; expected a share of the gain in (0, 1]")
    if options.fuse:
        raise ValueError(
            "fuse is given, and a dial's checkpoints have the target's own keys; expected no --fuse"
        )
    _add_clean(options)
    folder = writable_folder(options.output)
    remarks = []
    if options.target is None or options.baseline is not None:
        pair = open_pair(options)
    else:
        target = loaded_target(options, _architecture(options))
        with alone_in(folder):
            baseline = _derived(target, options, folder)
        pair = baseline, target
        remarks.append(f"Baseline, derived from the target:\n{baseline.faigfast_derivation}\n")
    study = open_study(options, pair=pair, metrics=METRICS)
    contrasts = tuple(c for c in study.contrasts if options.contrast or c.degradation != CLEAN)
    if useless := [c.name for c in contrasts if c.degradation == CLEAN]:
        raise ValueError(
            f"contrast {useless[0]!r} is of clean images, from which nothing is removed; expected "
            "a degradation"
        )
    every_other = slice(0, None, 2)
    selection, measured = study.measured.part(every_other), study.measured.without(every_other)
    if not measured.names:
        raise ValueError(
            "1 crop is left to choose filters and to measure them; expected more or smaller crops"
        )
    with alone_in(folder):
        announce_dial(study, options, len(contrasts), selection, measured)
        result = study.attribution()
        for caution in cautions(result):
            if caution.badge != f"no gain under {CLEAN}":  # clean images are the control
                note(caution.note, options.quiet)
        dials = make_dials(
            *pair,
            result,
            selection,
            measured,
            contrasts=contrasts,
            fractions=options.fractions,
            strengths=options.strengths,
            undo=options.undo,
            border=study.border,
            own_knob=noise_level_knob(pair[1]),
            finished_parts=study.finished_parts,
            progress=study.progress,
        )
        files = _write(folder, options, pair, dials)
        like = target_file(options)
        for one in dials:
            remarks += one.sentences()
            remarks.append(_size(folder / _dial_name(one, dials), like))
        remarks += [line_sentence(result) + ".", MEANING, _describe(study, len(selection.names))]
        write_text(folder / "summary.txt", "\n".join(remarks) + "\n")
        import pandas

        data_frames = {
            "dial curve": pandas.concat([one.to_frame() for one in dials]),
            "dial sets": pandas.concat([one.sets_frame() for one in dials]),
        }
        figures = {"dial curves": dial_figure(dials, remarks[-1])}
        first = {name: x[:1] for name, x in measured.lq.items()}
        for one in dials:
            strip = dial_images(one, *pair, first, options.pad)
            text = (
                "One crop at the strengths of the dial (0 off, 1 target) and of an interpolation "
                "of all weights between baseline and target; last row: clean input."
            )
            figures[f"strip {one.name}"] = images_figure(strip, f"{text} {remarks[-1]}")
        files.append("summary.txt")
        publish(options, words, "dial", data_frames, figures, remarks, files)


def _add_clean(options: Any) -> None:
    """Add clean images to the degradations, since their contrast finds the filters."""
    if options.lq:
        names = [item.partition("=")[0] for item in options.lq]
        if CLEAN not in names or len(names) < 2:
            raise ValueError(
                f"lq names {', '.join(names)}; expected a degradation and {CLEAN}=FOLDER, the "
                "images without degradation"
            )
        return
    options.degrade = list(options.degrade or DEFAULT_RECIPES)
    recipes = named_recipes(options.degrade)
    if CLEAN not in recipes:
        options.degrade.append(CLEAN)
    elif recipes[CLEAN] != CLEAN:
        raise ValueError(f"degrade names {recipes[CLEAN]!r} {CLEAN!r}; expected another name")
    elif len(recipes) < 2:
        raise ValueError(
            f"degrade holds {CLEAN!r} alone; expected a degradation, such as noise=0.1"
        )


def _architecture(options: Any) -> nn.Module | None:
    return own_network(options.into, options.into_kwargs) if options.into else None


def _derived(target: nn.Module, options: Any, folder: Path) -> Any:
    """Derive the baseline in the folder, or read the one that was finished there."""
    channels = image_channels(target)
    images: Any
    if options.train or options.gt is None:
        images = training_photographs(options.train, "--train", options, channels)
        patch = PATCH
    else:
        data = open_crops(options, target, DEFAULT_RECIPES)
        images = data.part(slice(0, None, options.attributed)).gt
        low = next(iter(data.lq.values())).shape[-1]
        patch = min(PATCH, low)
    announce_derivation(target, channels, options, patch)
    remember(folder / "baseline", options, options.overwrite)
    forget = None
    if not options.lq:
        forget = [d for name, d in parse_recipes(options, target).items() if name != CLEAN]
    baseline = faigfast.derive_baseline(
        target,
        images,
        scale=options.scale,
        iterations=options.iterations,
        forget=forget,
        ground_truth=options.ground_truth,
        learning_rate=options.rate,
        patch=patch,
        batch=options.batch,
        pad=options.pad,
        seed=options.seed,
        output=folder / "baseline",
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    path = folder / f"baseline{target_file(options).suffix.lower()}"
    _save(baseline, path, options)
    # Rounded as in the file, which may hold half precision.
    key = pair_keys(options)[1]
    written = faigfast.load_model(path, _architecture(options), key=key, dtype=options.dtype)
    baseline.load_state_dict(written.state_dict())
    return baseline


def _save(network: nn.Module, path: Path, options: Any) -> None:
    """Write a network under the keys of the target's checkpoint."""
    faigfast.save_model(network, path, like=target_file(options), key=pair_keys(options)[1])


def _write(
    folder: Path,
    options: Any,
    pair: tuple[nn.Module, nn.Module],
    dials: Sequence[DialResult],
) -> list[str]:
    """Write dials and checkpoints; return the names of the files."""
    files = []
    suffix = target_file(options).suffix.lower()
    for one in dials:
        files.append(_dial_name(one, dials))
        one.dial.save(folder / files[-1])
        for strength in one.strengths:
            files.append(f"{file_stem(one.name)}-{strength:g}{suffix}")
            _save(one.dial.apply(pair[1], strength), folder / files[-1], options)
            if suffix == ".param":
                files.append(f"{files[-1].removesuffix(suffix)}.bin")
    return files


def _dial_name(one: DialResult, dials: Sequence[DialResult]) -> str:
    """Name the file of a dial; it has the short name where it is the only one."""
    return "dial.safetensors" if len(dials) == 1 else f"dial-{file_stem(one.name)}.safetensors"


def _size(dial: Path, checkpoint: Path) -> str:
    """Compare the file of a dial with the target's checkpoint."""
    weights = (
        checkpoint.with_suffix(".bin") if checkpoint.suffix.lower() == ".param" else checkpoint
    )
    sizes = dial.stat().st_size, weights.stat().st_size
    return f"{dial.name}: {sizes[0]} bytes, {100 * sizes[0] / sizes[1]:.1f} % of {weights.name}."


def _describe(study: Study, selected: int) -> str:
    """Say what was attributed and measured."""
    names = study.measured.photographs
    attributed = (
        "given" if study.given is not None else counted(len(study.attributed.names), "crop")
    )
    return (
        f"Attributed: {attributed}; filters chosen on {selected} other crops, curves measured on "
        f"{len(names) - selected} others again, of {study.measured.gt.shape[-1]} pixels, from "
        f"{', '.join(dict.fromkeys(names))}. Border of {study.border} left out, output rounded to "
        "8 bit. ± is half of a 95 % confidence interval over photographs."
    )
