"""The process of one item: runs its steps, and appends a line before and after each.

python -m scripts.gpu.run ITEM '{"results": PATH, "stamp": {...}, "skip": [STEP, ...]}'
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from .children import die_with_parent
from .items import ITEMS
from .outcomes import NotRunError, StepFailedError
from .results import BEGUN, COMPLETE, NOT_RUN, PASSED, Results

Steps = Mapping[str, Callable[[], dict[str, Any] | None]]
BROKEN = 3  # exit status: the device failed, and only a new process can use it


def run_steps(item: str, make_steps: Callable[[], Steps], given: str) -> int:
    """Run the steps that are not to be skipped; give the exit status.

    Parameters
    ----------
    item : str
        Name of the item.
    make_steps : callable
        Maps names of steps to functions that give their figures, in JSON's types; raises
        NotRunError where none can run.
    given : str
        JSON: path of the results, stamp of every line, steps to skip.
    """
    told = json.loads(given)
    results = Results(Path(told["results"]))

    def write(step: str, state: str, **more: Any) -> None:
        results.append(item=item, step=step, state=state, **more, **told["stamp"])

    try:
        steps = make_steps()
    except NotRunError as refusal:
        write("", NOT_RUN, reason=str(refusal))
        return 0
    for name, step in steps.items():
        if name in told["skip"]:
            continue
        write(name, BEGUN)
        began = time.monotonic()
        state, reason, figures = PASSED, "", {}
        try:
            figures = step() or {}
        except NotRunError as refusal:
            state, reason = NOT_RUN, str(refusal)
        except StepFailedError as failure:
            state, reason, figures = "failed", str(failure), failure.figures
        except Exception as failure:  # the other steps go on, and this line says why
            traceback.print_exc()
            state, reason = "failed", one_line(failure)
        seconds = round(time.monotonic() - began, 3)
        write(name, state, seconds=seconds, reason=reason, figures=figures)
        if device_broke():
            return BROKEN
    write("", COMPLETE)
    return 0


def one_line(failure: BaseException) -> str:
    """Shorten an error to its first line."""
    lines = str(failure).strip().splitlines() or [""]
    return f"{type(failure).__name__}: {lines[0][:300]}".rstrip(": ")


def device_broke() -> bool:
    """Whether the device fails from here on, as after an illegal address."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main() -> int:
    """Run the item of the command line."""
    die_with_parent()
    name, given = sys.argv[1:]
    item = ITEMS[name]
    body = import_module(f"scripts.gpu.bodies.{item.body}")
    return run_steps(name, lambda: body.steps(*item.words), given)


if __name__ == "__main__":
    sys.exit(main())
