"""`faigfast baseline`: the baseline of a single checkpoint, by training it on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import faigfast
from faigfast.cli.estimate import announce_derivation
from faigfast.cli.option_names import with_options
from faigfast.cli.other_run import STATE_SUFFIX, forget_unused, remember
from faigfast.cli.output import command_line, note, writable_file
from faigfast.cli.own_code import own_network
from faigfast.cli.study import read_folder
from faigfast.cli.weights import loaded_target
from faigfast.data.photographs import TRAINING, photographs
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.lock import alone_in
from faigfast.models.output_shape import image_channels
from faigfast.zoo.checkpoints import NCNN_SUFFIX, checkpoint_path

# Options that `derive_baseline` takes unchanged.
SETTINGS = (
    "scale", "iterations", "keep", "forget", "ground_truth", "patch", "batch", "pad", "seed",
    "overwrite",
)  # fmt: skip


def run(options: Any, words: Sequence[str]) -> None:
    """Derive the baseline, or resume; write it in the target's form, and its record."""
    file, state = _check_files(options)
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"threads is {options.threads}; expected a positive integer")
        torch.set_num_threads(options.threads)
    into = own_network(options.into, options.into_kwargs) if options.into else None
    target = loaded_target(options, into)
    for parameter in target.parameters():  # some architectures come frozen
        parameter.requires_grad_(parameter.is_floating_point())
    channels = image_channels(target)
    if options.gt:
        images = read_folder(options.gt, options, channels)
    else:
        images = photographs(TRAINING, channels)
    writable_file(options.output)
    begun = state.is_dir()
    state.mkdir(parents=True, exist_ok=True)
    if begun and not options.overwrite:
        note(f"going on from {state}", options.quiet)
    with alone_in(state):
        announce_derivation(target, channels, options, options.patch)
        remember(state, options, options.overwrite)
        try:
            baseline: Any = faigfast.derive_baseline(
                target,
                images,
                output=state,
                learning_rate=options.rate,
                progress=not options.quiet,
                **{name: options[name] for name in SETTINGS},
            )
        except BaseException:
            forget_unused(options)
            if state.is_dir() and not any(state.iterdir()):  # nothing to resume from
                state.rmdir()
            raise
        record = baseline.faigfast_derivation
        faigfast.save_model(baseline, file, like=options.target, key=options.key)
        content = {
            "command": command_line(words),
            **record.to_json(),
            "versions": describe_versions(),
            "machine": describe_machine(),
        }
        write_json(file.with_suffix(".json"), content)
    print(record)
    print(f"wrote {file.name} and {file.with_suffix('.json').name} in {file.parent}")
    if record.diverged:
        note(with_options(record.stopped, options), options.quiet)


def _check_files(options: Any) -> tuple[Path, Path]:
    """Give the file and the folder of the state; refuse wrong ones before the long part."""
    file = checkpoint_path(options.output)
    state = file.with_name(file.name + STATE_SUFFIX)
    suffixes = (file.suffix.lower(), Path(options.target).suffix.lower())
    if suffixes[0] == NCNN_SUFFIX != suffixes[1]:
        raise ValueError(
            f"--output {file} needs the layers of the target; expected a target in a "
            f"{NCNN_SUFFIX} file"
        )
    if file.resolve() == Path(options.target).resolve():
        raise ValueError(f"--output {file} is the target; expected another file")
    if file.exists() and not state.is_dir() and not options.overwrite:
        raise ValueError(f"--output {file} exists; expected a new file, or --overwrite")
    return file, state
