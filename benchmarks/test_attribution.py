"""One attribution by everyone who can compute it: `python -m pytest benchmarks`.

`faigfast bench` runs the same interleaved, which is fairer; here each is timed by itself.
"""

from functools import cache

import pytest

from faigfast.bench import DEFAULT, workload
from faigfast.bench.rivals import contenders
from faigfast.bench.runner import BOUND, LOSS_BOUND, errors, exact

STEPS = 8


@cache
def problem_and_answer(name):
    problem = workload(name).problem(STEPS)
    return problem, exact(problem)


@pytest.mark.parametrize("contender", [*contenders()])
@pytest.mark.parametrize("name", DEFAULT)
def test_attribution(name, contender, benchmark):
    problem, expected = problem_and_answer(name)
    run = contenders()[contender](problem)
    scores, losses = errors(run(), expected)
    assert scores <= BOUND and losses <= LOSS_BOUND
    benchmark.group = f"{workload(name)}, {STEPS} points"
    benchmark.extra_info["error"] = scores
    benchmark.extra_info["effective_flops"] = problem.flops
    benchmark.pedantic(run, rounds=3)
