"""`faigfast modulate`: restoration at chosen strengths of the discovered filters."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import faigfast
from faigfast.analysis.modulation import check_strength, modulate, modulated, modulated_images
from faigfast.analysis.report.captioned import grid_figure, modulation_figure, strengths_figure
from faigfast.analysis.report.tables import modulation_sentences
from faigfast.analysis.swapped_networks import about_biases
from faigfast.cli.output import note, writable_file
from faigfast.cli.remarks import describe
from faigfast.cli.study import open_study, publish, target_file
from faigfast.cli.weights import check_savable, pair_keys
from faigfast.filters.filter_set import FilterSet
from faigfast.io.lock import alone_in
from faigfast.zoo.checkpoints import NCNN_SUFFIX, checkpoint_path


def run(options: Any, words: Sequence[str]) -> None:
    """Measure the strengths, and save the network of --set."""
    if bool(options.save) != bool(options.set):
        raise ValueError("one of --save and --set is given; expected both or neither")
    for strength in options.strengths:
        check_strength(strength, "--strengths")
    wanted = _strengths(options.set or ())
    study = open_study(options)
    names = [contrast.name for contrast in study.contrasts]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"set names {unknown[0]!r}; expected some of {', '.join(names)}")
    if options.save:
        _check_save(options)
        check_savable(options, study.target, target_file(options))
    pair = study.baseline, study.target
    with alone_in(options.output):
        sets = study.tops(options.fraction)
        biases = options.biases
        saved = modulated(*pair, sets, wanted, biases=biases) if options.save else None
        modulation = modulate(
            *pair,
            sets,
            study.measured,
            strengths=options.strengths,
            together=options.grid,
            biases=biases,
            border=study.border,
            finished_parts=study.finished_parts,
            progress=study.progress,
        )
        figures, described = {}, describe(study)
        if 1.0 in options.strengths or not options.grid:
            figures["modulation curves"] = modulation_figure(modulation, described)
        strips = []
        for contrast in study.contrasts:
            lq = study.measured.lq[contrast.degradation][:1]
            strengths_by_image = [{contrast.name: s} for s in sorted(set(options.strengths))]
            pad = study.measured.pad
            images = modulated_images(*pair, sets, lq, strengths_by_image, pad, biases=biases)
            low = F.interpolate(lq, size=images[0].shape[1:])[0]
            captions = {
                f"{contrast.name} × {s[contrast.name]:g}": x
                for s, x in zip(strengths_by_image, images, strict=True)
            }
            strips.append({f"{contrast.degradation} input": low, **captions})
        figures["modulation images"] = strengths_figure(strips, described)
        sentences = modulation_sentences(modulation, study.contrasts)
        pairs = list(itertools.combinations(study.contrasts, 2)) if options.grid else []
        for two in pairs:
            inputs = {c.degradation: study.measured.lq[c.degradation][:1] for c in two}
            of = [contrast.name for contrast in two]
            name = "modulation grid" if len(pairs) == 1 else f"modulation grid {' '.join(of)}"
            steps = sorted(set(options.strengths))
            images_by_input = _grid(pair, sets, of, inputs, options)
            figures[name] = grid_figure(images_by_input, steps, (of[0], of[1]), described)
        if options.grid:
            sentences.append(_about_grids(len(pairs)))
        if biases:
            sentences.append(about_biases(study.target, sets))
        data_frames = {"modulation": modulation.to_frame()}
        publish(options, words, "modulate", data_frames, figures, [*sentences, described])
        if saved is not None:
            faigfast.save_model(
                saved, options.save, like=target_file(options), key=pair_keys(options)[1]
            )
            note(f"wrote {Path(options.save)}", options.quiet)


def _grid(
    pair: tuple[nn.Module, nn.Module],
    sets: dict[str, FilterSet],
    names: Sequence[str],
    inputs: dict[str, Tensor],
    options: Any,
) -> dict[str, list[list[Tensor]]]:
    """Restore every input at all pairs of strengths: one name by row, the other by column."""
    one, other = names
    steps = sorted(set(options.strengths))
    images_by_input: dict[str, list[list[Tensor]]] = {}
    for degradation, lq in inputs.items():
        for down in steps:
            strengths_by_image = [{one: down, other: across} for across in steps]
            images = modulated_images(
                *pair, sets, lq, strengths_by_image, options.pad, biases=options.biases
            )
            images_by_input.setdefault(degradation, []).append(list(images))
    return images_by_input


def _about_grids(pairs: int) -> str:
    """Describe the pictures of --grid."""
    if not pairs:
        return "Of one contrast alone there is no grid to be drawn."
    rest = "; all other strengths are 1" if pairs > 1 else ""
    return f"Grids: the first crop in the degradation of either contrast{rest}."


def _check_save(options: Any) -> None:
    """Refuse a file that cannot be written or belongs to the pair, before the long part."""
    checkpoint_path(options.save)
    writable_file(options.save, "--save")
    is_ncnn = Path(options.save).suffix.lower() == NCNN_SUFFIX
    if is_ncnn and target_file(options).suffix.lower() != NCNN_SUFFIX:
        raise ValueError(
            f"--save {options.save} needs the layers of the target; expected a target in a "
            f"{NCNN_SUFFIX} file"
        )
    for checkpoint in (options.baseline, options.target):
        if checkpoint is not None and Path(options.save).resolve() == Path(checkpoint).resolve():
            raise ValueError(f"--save {options.save} is a checkpoint of the pair; expected another")


def _strengths(items: Sequence[str]) -> dict[str, float]:
    """Read NAME=STRENGTH."""
    strengths: dict[str, float] = {}
    for item in items:
        name, _, value = item.rpartition("=")
        if name in strengths:
            raise ValueError(f"set names {name!r} twice; expected each once")
        try:
            strengths[name] = check_strength(float(value), name)
        except ValueError:
            raise ValueError(
                f"set holds {item!r}; expected NAME=STRENGTH, a finite number"
            ) from None
    return strengths
