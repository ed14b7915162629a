"""`faigfast modulate`: restoration at strengths of one's own."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import faigfast
from faigfast.analysis.modulation import check_strength, modulate, modulated, modulated_images
from faigfast.analysis.report.figures import modulation_curves, side_by_side
from faigfast.analysis.report.tables import modulation_sentences
from faigfast.cli.output import note, writable_file
from faigfast.cli.run_folder import alone_in
from faigfast.cli.study import describe, open_study, publish, target_file
from faigfast.filters.filter_set import FilterSet
from faigfast.zoo.checkpoints import checkpoint_path


def run(options: Any, words: Sequence[str]) -> None:
    """Measure the strengths, and save the network that is asked for."""
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
    pair = study.baseline, study.target
    with alone_in(options.output):
        sets = study.tops(options.fraction)
        saved = modulated(*pair, sets, wanted) if options.save else None
        modulation = modulate(
            *pair,
            sets,
            study.kept,
            strengths=options.strengths,
            together=options.grid,
            border=study.border,
            store=study.store,
            progress=study.progress,
        )
        figures = {}
        if 1.0 in options.strengths or not options.grid:
            figures["modulation curves"] = modulation_curves(modulation)
        strips = []
        for contrast in study.contrasts:
            lq = study.kept.lq[contrast.degradation][:1]
            settings = [{contrast.name: s} for s in sorted(set(options.strengths))]
            images = modulated_images(*pair, sets, lq, settings)
            low = F.interpolate(lq, size=images[0].shape[1:])[0]
            captions = {
                f"{contrast.name} × {s[contrast.name]:g}": x
                for s, x in zip(settings, images, strict=True)
            }
            strips.append({f"{contrast.degradation} input": low, **captions})
        figures["modulation images"] = side_by_side(strips)
        said = modulation_sentences(modulation, study.contrasts)
        pairs = list(itertools.combinations(study.contrasts, 2)) if options.grid else []
        for two in pairs:
            inputs = {c.degradation: study.kept.lq[c.degradation][:1] for c in two}
            of = [contrast.name for contrast in two]
            name = "modulation grid" if len(pairs) == 1 else f"modulation grid {' '.join(of)}"
            figures[name] = side_by_side(_grid(pair, sets, of, inputs, options.strengths))
        if options.grid:
            said.append(_about_grids(len(pairs)))
        tables = {"modulation": modulation.frame()}
        publish(options, words, "modulate", tables, figures, [*said, describe(study)])
        if saved is not None:
            faigfast.save_model(saved, options.save, like=target_file(options))
            note(f"wrote {Path(options.save)}", options.quiet)


def _grid(
    pair: tuple[nn.Module, nn.Module],
    sets: dict[str, FilterSet],
    names: Sequence[str],
    inputs: dict[str, Tensor],
    strengths: Sequence[float],
) -> list[dict[str, Tensor]]:
    """Restore every input at all pairs of strengths: one name's downwards, the other's across."""
    one, other = names
    steps = sorted(set(strengths))
    rows = []
    for degradation, lq in inputs.items():
        for down in steps:
            settings = [{one: down, other: across} for across in steps]
            images = modulated_images(*pair, sets, lq, settings)
            captions = [
                f"{degradation} input\n{one} {s[one]:g}, {other} {s[other]:g}" for s in settings
            ]
            rows.append(dict(zip(captions, images, strict=True)))
    return rows


def _about_grids(pairs: int) -> str:
    """Say what the pictures of --grid show."""
    if not pairs:
        return "Of one contrast alone there is no grid to be drawn."
    rest = "; all other strengths are 1" if pairs > 1 else ""
    return f"Grids: the first crop in the degradation of either contrast{rest}."


def _check_save(options: Any) -> None:
    """Refuse a file that cannot be written, or is one of the pair's, before anything long."""
    checkpoint_path(options.save)
    writable_file(options.save, "--save")
    for end in (options.baseline, options.target):
        if end is not None and Path(options.save).resolve() == Path(end).resolve():
            raise ValueError(f"--save {options.save} is a checkpoint of the pair; expected another")


def _strengths(items: Sequence[str]) -> dict[str, float]:
    """Read NAME=STRENGTH."""
    found: dict[str, float] = {}
    for item in items:
        name, _, value = item.rpartition("=")
        if name in found:
            raise ValueError(f"set names {name!r} twice; expected each once")
        try:
            found[name] = check_strength(float(value), name)
        except ValueError:
            raise ValueError(
                f"set holds {item!r}; expected NAME=STRENGTH, a finite number"
            ) from None
    return found
