"""Steps of a network: how one layer runs, with the module that holds its weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.zoo.ncnn.bin_file import Stored, WeightReader
from faigfast.zoo.ncnn.param_file import Layer, Parameters

Run = Callable[..., Any]  # module, if there is one, and inputs -> output, or a tuple of them


@dataclass(frozen=True)
class Extent:
    """Size of a blob, as far as it is known without an image.

    Attributes
    ----------
    channels : int or None
        Channels, or length of a vector; None where unknown.
    scale : Fraction or None
        Its size divided by the input's, apart from margins; None if unknown or without meaning.
    is_input : bool
        Whether it has the channels of the input.
    """

    channels: int | None = None
    scale: Fraction | None = None
    is_input: bool = False


UNKNOWN = Extent()


@dataclass(frozen=True)
class Step:
    """One layer, ready to run.

    Attributes
    ----------
    run : callable
        Takes the module, if there is one, and the inputs.
    outputs : tuple of Extent
        Sizes of the outputs.
    make_module : callable or None
        Makes the module with its weights, after both files have been checked.
    arrays : tuple of Stored
        Its arrays in the order of the file; keys are the module's.
    in_channels : int or None
        Channels of the input, if the weights determine them.
    """

    run: Run
    outputs: tuple[Extent, ...]
    make_module: Callable[[], nn.Module] | None = None
    arrays: tuple[Stored, ...] = ()
    in_channels: int | None = None


@dataclass(frozen=True)
class Blueprint:
    """All that a layer is built from.

    Attributes
    ----------
    layer : Layer
        Its line.
    parameters : Parameters
        Its parameters.
    weights : WeightReader
        The `.bin` file, read up to the layer's first array.
    inputs : tuple of Extent
        Sizes of its inputs.
    """

    layer: Layer
    parameters: Parameters
    weights: WeightReader
    inputs: tuple[Extent, ...]

    def expect(self, inputs: int | None = 1, outputs: int | None = 1) -> None:
        """Refuse another number of inputs or outputs; None takes one or more."""
        for name, blobs, wanted in (
            ("inputs", self.layer.inputs, inputs),
            ("outputs", self.layer.outputs, outputs),
        ):
            if len(blobs) != wanted if wanted is not None else not blobs:
                raise ValueError(
                    f"{self.layer.place} has {len(blobs)} {name}; expected "
                    f"{'at least one' if wanted is None else wanted}"
                )

    def plain(self, key: str, count: int) -> tuple[nn.Parameter, Stored]:
        """Read a vector that is stored as float32, [count]."""
        self.parameters.check_all_read()
        value = self.weights.plain(count, self.layer.place)
        return nn.Parameter(value), Stored(key, None, torch.flatten)

    def flagged(
        self,
        key: str,
        shape: tuple[int, ...],
        to_module: Run | None = None,
        in_file: Run = torch.flatten,
    ) -> tuple[nn.Parameter, Stored]:
        """Read a tensor with this shape in the file; its flag names the storage."""
        self.parameters.check_all_read()
        value, flag = self.weights.flagged(math.prod(shape), self.layer.place)
        value = value.reshape(shape)
        if to_module is not None:
            value = to_module(value).contiguous()
        return nn.Parameter(value), Stored(key, flag, in_file)


Builder = Callable[[Blueprint], Step]
BUILDERS: dict[str, Builder] = {}


def layer_type(*kinds: str) -> Callable[[Builder], Builder]:
    """Register the function that builds layers of these types."""

    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return register


def pointwise(blueprint: Blueprint, run: Run) -> Step:
    """Make a step whose output is as large as its input."""
    blueprint.expect()
    return Step(run, blueprint.inputs)


def module_of(
    kind: Callable[..., nn.Module], arguments: tuple[Any, ...], tensors: dict[str, Tensor | None]
) -> nn.Module:
    """Make a module and give it its tensors."""
    module = kind(*arguments, device="meta")
    for key, value in tensors.items():
        setattr(module, key, value)
    return module


def chained(run: Run, then: Run | None) -> Run:
    """Give `run`, followed by an activation if there is one."""
    return run if then is None else partial(_both, run, then)


def _both(first: Run, second: Run, *inputs: Any) -> Any:
    return second(first(*inputs))
