"""Verdicts on a call: its exception, or its scores beside the oracle's."""

import re
import traceback
from typing import Any

import torch
from call import ANY, Call
from oracle import Rule, nodes_and_weights, relative_error, scores
from torch import Tensor

LONGEST = 1000  # characters of a message
TOLERANCE = 1e-4  # relative L1 error of scores
TOLERANCES = {"bf16": 0.2, "fp16": 0.05}
ROUGH = 0.1  # of rules that the oracle does not have
MOST_POINTS = 1000  # of the oracle; beyond, it takes the integral
EXACT = ("midpoint", "left", "right", "trapezoid")  # whose levels with `tol` are the rule itself


def fault_of_error(
    problem: BaseException, words: str, own: tuple[type[BaseException], ...] = ()
) -> str | None:
    """Judge an exception: its type, and one sentence that names the argument by one of the words.

    Exceptions of the caller's own code may pass.
    """
    kind, message = type(problem).__name__, str(problem)
    if type(problem) in own:
        return None
    if type(problem) not in ANY:
        return f"{kind} at {_place(problem)}: {message[:160]!r}"
    if not message or "\n" in message or len(message) > LONGEST:
        return f"{kind} at {_place(problem)}, not in one sentence: {message[:160]!r}"
    if not re.search(words, message):
        return f"{kind} at {_place(problem)}, without any of {words!r}: {message[:160]!r}"
    return None


def _place(problem: BaseException) -> str:
    """Give the last line of the product in an exception's trace."""
    frames = traceback.extract_tb(problem.__traceback__)
    for frame in [f for f in frames if "/faigfast/" in f.filename][-1:]:
        return f"{frame.filename.rpartition('/faigfast/')[2]}:{frame.lineno}"
    return "no line of the package"


def fault_of_scores(result: Any, call: Call) -> str | None:
    """Compare the scores of a result with the oracle's; None if they agree."""
    noted = any("completeness" in note for note in result.notes)
    if not (noted or result.completeness.isfinite().all()):
        return f"completeness {result.completeness.flatten()[:2].tolist()} without a note"
    if result.degradations != tuple(call.meant):
        return f"degradations {result.degradations}, expected {tuple(call.meant)}"
    networks = call.networks or (call.baseline, call.target)
    signed = result.setting.method == "signed"
    for row, (name, images) in enumerate(call.meant.items()):
        expected = []
        for number, (x, gt) in enumerate(images):
            points = int(result.points[row, number])
            rule, tolerance = _rule(result.setting, points)
            try:
                by_layer = scores(networks, x, gt, call.loss, rule, signed)
            except Exception as problem:
                return f"gave scores where the definition fails: {type(problem).__name__} {problem}"
            if tuple(by_layer) != result.index.layers:
                return f"layers {result.index.layers}, expected {tuple(by_layer)}"
            expected.append(_selected(by_layer, call.layers))
        mean = torch.stack(expected).mean(0)
        one, other = result.mean(name), mean
        if result.setting.per_image:
            one, other = result.scores(name), torch.stack(expected)
        error = relative_error(one, other)
        if not error <= max(tolerance, TOLERANCES.get(result.precision, 0)):
            return f"scores with a relative error of {error:.1e} by {result.backend}"
    return None


def _rule(setting: Any, points: int) -> tuple[Rule, float]:
    """Give the oracle's rule for an image of so many points, and the tolerance."""
    if setting.emulate or setting.rule == "gauss-kronrod":
        known = setting.emulate and setting.steps <= MOST_POINTS
        return nodes_and_weights(setting.rule if known else "", setting.steps), ROUGH
    if setting.tol is not None and setting.rule not in EXACT:
        return nodes_and_weights("", points), 3 * setting.tol
    return nodes_and_weights(setting.rule, points), TOLERANCE


def _selected(by_layer: dict[str, Tensor], layers: set[str] | None) -> Tensor:
    """Join the scores of all layers, 0 for those that are not selected."""
    parts = (v if layers is None or key in layers else 0 * v for key, v in by_layer.items())
    return torch.cat(list(parts))
