"""Malformed and unusual calls of the Python API: right scores or one clear error, no traces."""

import contextlib
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

import calls_contexts
import calls_images
import calls_networks
import calls_objectives
import calls_options
import calls_results
from call import Call, Mutation, base_call
from children import Stopped, watch
from snapshot import changes, generators, modes, network_state
from tally import Tally
from verdict import fault_of_error, fault_of_scores

NAME = "malformed and unusual calls"
CALLS = 1100
CALLS_SHORT = 60
SECONDS = 60.0  # of one call, also beside a thread that collects garbage without end
PATIENCE = 60.0  # seconds until a call that cannot be interrupted is killed

# In the order in which mutations of one call are applied.
GROUPS: list[list[Mutation]] = [
    calls_networks.MUTATIONS,
    calls_objectives.MUTATIONS,
    calls_images.MUTATIONS,
    calls_options.MUTATIONS,
    calls_contexts.MUTATIONS,
]
Plan = tuple[int, list[tuple[int, int]]]  # seed; group and number of every mutation


class TooSlow(BaseException):
    """A call took longer than it may."""


def run(random: Random, short: bool) -> Tally:
    """Make every malformed call once, then pairs of mutations; in a child, for calls that crash."""
    plans = draw_plans(random, CALLS_SHORT if short else CALLS)
    tally = Tally(NAME, 0, 0, [])
    with tempfile.TemporaryDirectory() as folder:
        while tally.tried < len(plans):
            rest = plans[tally.tried :]
            for plan, message in zip(
                rest, watch(_answer, rest, Path(folder), patience=PATIENCE), strict=False
            ):
                fault = message.reason if isinstance(message, Stopped) else message
                tally.tried += 1
                if fault is None:
                    tally.fine += 1
                else:
                    tally.bad.append(f"{describe(plan)}: {fault}")
    return tally


def draw_plans(random: Random, count: int) -> list[Plan]:
    """Draw calls: every mutation once, or some of them, and pairs of mutations up to the count."""
    results = [[(len(GROUPS), n)] for n in range(len(calls_results.DEEDS))]
    every = [[(g, n)] for g, group in enumerate(GROUPS) for n in range(len(group))] + results
    if len(every) > count:
        every = random.sample(every, count)
    while len(every) < count:
        groups = sorted(random.sample(range(len(GROUPS)), 2))
        pair = [(g, random.randrange(len(GROUPS[g]))) for g in groups]
        if not any(GROUPS[g][n].alone for g, n in pair):
            every.append(pair)
    return [(random.randrange(2**31), mutations) for mutations in every]


def describe(plan: Plan) -> str:
    """Name the mutations and the seed of a call."""
    seed, numbers = plan
    groups = [*GROUPS, calls_results.DEEDS]
    return f"{' + '.join(groups[g][n].name for g, n in numbers)} (seed {seed})"


def _answer(sender: Any, plans: list[Plan], folder: Path) -> None:
    """Send the fault of every call, None where there is none."""
    signal.signal(signal.SIGALRM, _give_up)
    warnings.simplefilter("ignore")
    fixture = calls_results.Fixture(folder)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - of progress bars, until the child ends
    for seed, numbers in plans:
        try:
            if numbers[0][0] == len(GROUPS):
                sender.send(calls_results.fault_of(calls_results.DEEDS[numbers[0][1]], fixture))
            else:
                sender.send(fault_of(seed, [GROUPS[g][n] for g, n in numbers]))
        except TooSlow:
            sender.send(f"took more than {SECONDS:g} s")
            os._exit(0)  # its threads may hold locks
        except Exception as problem:  # reading the result, or the campaign's own
            sender.send(f"could not be judged: {type(problem).__name__} {problem}"[:300])


def _give_up(number: int, frame: Any) -> None:
    raise TooSlow


def fault_of(seed: int, mutations: list[Mutation]) -> str | None:
    """Make a call with mutations and judge it; None if it is fine."""
    random = Random(seed)
    call = base_call(random)
    for mutation in mutations:
        mutation.change(call, random)
    networks = call.baseline, call.target, *call.watched
    before, drawn = [network_state(network) for network in networks], generators()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    started = time.monotonic()
    try:
        given, changed = _attribute(call, random.random() < 0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - started > SECONDS:
        raise TooSlow
    after = [network_state(network) for network in networks]
    for role, one, other in zip(("baseline", "target", "module"), before, after, strict=False):
        changed += [f"{name} of the {role}" for name in changes(one, other)]
    changed += [] if call.draws else changes(drawn, generators())
    if changed:
        return f"changed {', '.join(sorted(changed)[:4])}"
    if isinstance(given, BaseException):
        return fault_of_error(
            given,
            "|".join(mutation.words for mutation in mutations),
            tuple(kind for mutation in mutations for kind in mutation.own),
        )
    if refused := [mutation.name for mutation in mutations if mutation.refused]:
        return f"gave scores, which {refused[0]} does not have"
    return fault_of_scores(given, call)


def _attribute(call: Call, keep: bool) -> tuple[Any, list[str]]:
    """Give the result or the exception, and the names of modes that it changed."""
    from faigfast import Attributor, attribute

    def once() -> Any:
        if not keep:
            return attribute(call.baseline, call.target, call.batch, **call.options)
        with Attributor(call.baseline, call.target, **call.options) as attributor:
            return attributor(call.batch)

    given: Any
    with contextlib.ExitStack() as stack:
        for make in call.contexts:
            stack.enter_context(make())
        before = modes()
        try:
            given = once() if call.entry is None else call.entry(once)
        except Exception as problem:
            given = problem
        changed = list(changes(before, modes()))
    return given, changed
