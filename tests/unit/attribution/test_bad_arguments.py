"""Refused arguments: type and words of the error, and no side effects."""

import re

import numpy as np
import pytest
import torch
from cases.networks import images, kinked, pair, refused, same, untouched
from torch import nn

import faigfast
from faigfast import attribute
from faigfast.integration.quadrature import RULES


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_not_positive(steps):
    refused(ValueError, f"steps is {steps}; expected a positive integer", *pair(), steps=steps)


@pytest.mark.parametrize("steps", [1.0, 2.5, "10", True, [3]])
def test_steps_not_an_integer(steps):
    refused(TypeError, "steps is .*; expected a positive integer", *pair(), steps=steps)


@pytest.mark.parametrize("rule", ["gauss-legendre", "gauss-kronrod"])
def test_steps_that_a_gauss_rule_cannot_have(rule):
    refused(ValueError, "steps is 1000000; expected at most", *pair(), rule=rule, steps=10**6)


def test_predicates_of_other_arguments():
    for predicate in (lambda: True, lambda name: True, lambda name, tensor, more: True):
        refused(TypeError, "parameters is a function, but not of", *pair(), parameters=predicate)


@pytest.mark.parametrize("option", ["progress", "emulate", "per_image", "signed"])
def test_flags_of_another_type(option):
    refused(TypeError, f"{option} is 'x'; expected True or False", *pair(), **{option: "x"})


def test_losses_that_round_to_one_number_are_noted():
    result = attribute(
        *pair(), images(), steps=2, objective=lambda o, g: 1e20 + (o - g).square().flatten(1).sum(1)
    )
    assert any(note.startswith("completeness: undefined for") for note in result.notes)


@pytest.mark.parametrize(
    "option, expected",
    [
        ("rule", ", ".join(RULES)),
        ("backend", "auto, reference"),
        ("precision", "auto, fp64, fp32"),
        ("objective", "squared_error, absolute_error"),
    ],
)
@pytest.mark.parametrize("value", ["simpsons", "", "FP32"])
def test_unknown_names(option, expected, value):
    message = refused(ValueError, f"{option} is {value!r}", *pair(), **{option: value})
    assert f"expected one of {expected}" in message or f"expected {expected}" in message


@pytest.mark.parametrize("option", ["rule", "backend", "precision", "objective"])
@pytest.mark.parametrize("value", [3, ["left"], None])
def test_names_of_the_wrong_kind(option, value):
    refused((TypeError, ValueError), f"{option} is ", *pair(), **{option: value})


@pytest.mark.parametrize("backend", ["torch", "cpu", "triton", "cuda"])
def test_backends_that_are_not_here_say_why(backend):
    if faigfast.backends()[backend].available:
        assert attribute(*pair(), images(), backend=backend).backend == backend
    else:
        reason = faigfast.backends()[backend].reason
        refused(ValueError, f"{backend}.*{re.escape(reason)}", *pair(), backend=backend)


@pytest.mark.parametrize("memory", [0, -1, -(10**9)])
def test_memory_not_positive(memory):
    refused(ValueError, f"memory is {memory}; expected a positive", *pair(), memory=memory)


@pytest.mark.parametrize("memory", [1.5, "2GB", True, [1]])
def test_memory_of_the_wrong_kind(memory):
    refused(TypeError, "memory is .*expected a number of bytes", *pair(), memory=memory)


def test_memory_may_be_an_integer_of_numpy():
    nets = pair()
    expected = attribute(*nets, images(), memory=10**9, steps=2)
    assert same(attribute(*nets, images(), memory=np.int64(10**9), steps=2), expected)


@pytest.mark.parametrize("option", ["emulate", "per_image"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_switches_of_the_wrong_kind(option, value):
    words = f"{option} is {value!r}; expected True or False"
    refused(TypeError, words, *pair(), rule="left", steps=2, **{option: value})


@pytest.mark.parametrize("tol", [0.0, -1e-3, float("nan"), float("inf"), "small", True, [1e-3]])
def test_tolerances(tol):
    refused((ValueError, TypeError), "tol is", *pair(), tol=tol)


def test_emulation_of_other_rules():
    refused(ValueError, "emulate.*left and right.*averaged", *pair(), emulate=True)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ("conv.weight", "'conv.weight'.*matches no convolution weight.*'0.weight'"),
        (["0.weight", "3.*"], r"'3\.\*'.*matches no"),
        ("0.bias", "'0.bias'.*matches no"),
        ([], "selects no"),
        (lambda name, tensor: False, "selects no"),
    ],
)
def test_parameters_that_select_nothing(parameters, words):
    refused(ValueError, words, *pair(), parameters=parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        *([1], [None], 5, [torch.rand(1)], b"0.weight"),
        *(lambda name, tensor: tensor > 0, lambda name, tensor: tensor.mean()),
        lambda name, tensor: tensor.numpy() > 0,
    ],
)
def test_parameters_of_the_wrong_kind(parameters):
    refused(TypeError, "parameters .*expected", *pair(), parameters=parameters)


@pytest.mark.parametrize(
    "objective, kind, words",
    [
        (lambda o, g: (o - g).square().sum(), ValueError, r"objective gives \[\].*\[1\]"),
        (lambda o, g: (o - g).square(), ValueError, r"objective gives \[1, 3, 6, 5\]"),
        (lambda o, g: 1.0, TypeError, "objective gives float"),
        (lambda o, g: None, TypeError, "objective gives NoneType"),
        (lambda o, g: torch.ones(1, dtype=torch.long), TypeError, "objective gives torch.int64"),
        (lambda o, g: (o - g).flatten(1).sum(1) / 0, ValueError, "loss is (-?inf|nan)"),
        (3, TypeError, "objective is "),
    ],
)
def test_objectives_that_are_refused(objective, kind, words):
    refused(kind, words, *pair(), objective=objective)


def test_an_objective_that_fails_does_not_blame_the_images():
    def fails(output, gt):
        raise RuntimeError("feature extractor without weights")

    nets = pair()
    with untouched(*nets), pytest.raises((RuntimeError, ValueError)) as caught:
        attribute(*nets, images(), objective=fails)
    assert "feature extractor without weights" in str(caught.value)
    assert "networks do not take x" not in str(caught.value)


def test_errors_of_the_users_code_pass_through():
    def fails(output, gt):
        raise KeyError("mine")

    nets = pair()
    with untouched(*nets), pytest.raises(KeyError, match="mine"):
        attribute(*nets, images(), objective=fails)

    def broken(name, tensor):
        raise ZeroDivisionError

    with untouched(*nets), pytest.raises(ZeroDivisionError):
        attribute(*nets, images(), parameters=broken)


def test_an_interrupt_leaves_everything_as_it_was():
    class Interrupts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.left = kinked(), [2]

        def forward(self, x):
            self.left[0] -= 1
            if not self.left[0]:
                raise KeyboardInterrupt
            return self.net(x)

    nets = pair(Interrupts)
    for net in nets:
        net.train()
    with untouched(*nets), pytest.raises(KeyboardInterrupt):
        attribute(*nets, images())


@pytest.mark.parametrize("kernel", [2.0, 0.0])
def test_gradients_that_overflow_are_refused(kernel):
    """The loss is finite and its gradient is not: the root of zero."""
    nets = pair(lambda: nn.Conv2d(1, 1, 1, bias=False))
    x = torch.full((1, 1, 2, 2), kernel).double()

    def root(output, gt):
        return (output * 0).abs().sqrt().flatten(1).sum(1)

    refused(ValueError, "gradient .*not finite", *nets, batch=(x, x.clone()), objective=root)


def test_a_predicate_without_a_signature():
    refused(TypeError, "parameters is a function, but not of", *pair(), parameters=range)
