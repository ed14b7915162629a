"""Notes that depend on all images."""

from dataclasses import replace

import pytest
import torch
from cases.attributions import TWO, made

from faigfast.filters.index import FilterIndex
from faigfast.integration.result_notes import named, unused_copy


def test_few_names_and_a_count():
    assert named(["a", "b"]) == "'a', 'b'"
    assert named(list("abcde")) == "'a', 'b', 'c' and 2 more"


def test_an_error_that_is_no_number_is_undefined():
    result = made(TWO, tol=0.1)
    (note,) = (note for note in result.notes if note.startswith("tol "))
    assert "estimated error undefined" in note
    some = replace(result, error=torch.tensor([[0.2, float("nan")], [0.01, 0.02]]))
    (note,) = (note for note in some.notes if note.startswith("tol "))
    assert "2 of 2 images: estimated error up to 2.0e-01" in note


def test_layers_without_gradient_are_those_of_all_parts():
    parts = [
        replace(made(TWO), zero_gradient=layers)
        for layers in (("a.weight", "b.weight"), ("b.weight",))
    ]
    merged = parts[0].merge(parts[1])
    assert merged.zero_gradient == ("b.weight",)
    assert sum(note.startswith("gradient: ") for note in merged.notes) == 1
    assert "'a.weight'" not in "".join(merged.notes)
    assert not parts[0].merge(made(TWO)).zero_gradient


@pytest.mark.parametrize(
    ("layers", "unused", "expected"),
    [
        (["one.a", "two.a"], ["one.a"], None),
        (["one.a", "one.b", "two.a", "two.b"], ["one.a", "one.b"], ("one", "two")),
        (["m.one.x.a", "m.one.b", "m.two.x.a", "m.two.b"], ["m.two.x.a", "m.two.b"],
         ("m.two", "m.one")),
        (["one.a", "one.b", "two.a", "two.b"], ["one.a"], None),
        (["one.a", "two.b"], ["one.a"], None),
        (["one.a", "two.a", "tail"], ["one.a", "tail"], None),
        (["a", "b"], ["a"], None),
    ],
)  # fmt: skip
def test_a_copy_that_is_not_used(layers, unused, expected):
    index = FilterIndex(tuple(layers), ((2, 2, 3, 3),) * len(layers))
    assert unused_copy(unused, index) == expected
