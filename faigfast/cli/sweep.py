"""`faigfast sweep`: a plan in, the scores of all its combinations out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faigfast
from faigfast.cli.options import size
from faigfast.cli.output import note
from faigfast.io.nearest_name import hint
from faigfast.io.text_table import counted
from faigfast.sweeps.dry_run import dry_run
from faigfast.sweeps.status import status

STATUS = "status"  # in place of a plan; a plan of this name is ./status


def run(options: Any, words: Sequence[str]) -> None:
    """Run the sweep, or say how far it is."""
    if options.plan == STATUS:
        print(status(options.output))
        return
    if not Path(options.plan).exists() and (guess := hint(options.plan, [STATUS])):
        raise FileNotFoundError(f"there is no plan {options.plan!r}{guess}; expected a YAML file")
    if options.dry_run:
        print(dry_run(options.plan, options.output, workers=options.workers))
        return
    result = faigfast.sweep(
        options.plan,
        options.output,
        options.engine,
        workers=options.workers,
        address=options.address,
        worker_memory=None if options.worker_memory is None else size(options.worker_memory),
        unit_timeout=options.unit_timeout or None,
        retries=options.retries,
        max_failures=options.max_failures,
        verify=options.verify,
        progress=not options.quiet,
    )
    images = {failure["image"]: failure["reason"] for failure in result.failures}
    for name, reason in images.items():
        note(f"image {name!r} failed: {reason}", options.quiet)
    state = result.status
    failed = f", {counted(len(images), 'image')} failed (failures.jsonl)" if images else ""
    finished = f"{state.done} of {counted(state.total, 'unit')} finished{failed}"
    nothing = "" if state.driver["new"] or images else "; all were there before"
    print(f"{finished} in {options.output}{nothing}")
