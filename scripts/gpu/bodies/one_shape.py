"""One shape a kernel against float64: the first sign of life of every kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faigfast.ops.registry import choose

from ..layers import (
    BACKENDS,
    BOUND,
    PASSES,
    PathLayer,
    poison,
    relative_error,
    require,
    serving,
)
from ..outcomes import NotRunError, StepFailedError

SHAPE = (3, 2, 65, 47)  # points, images, height, width: no multiple of any tile


def steps(who: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Check the passes of a layer, and every other operation that has a kernel.

    Parameters
    ----------
    who : str
        `triton`, `cuda` or `hopper`.
    """
    require(who)
    passes: dict[str, Callable[[], dict[str, Any]]] = {
        f"conv, {part}": partial(check_pass, who, part) for part in PASSES
    }
    if who == "hopper":
        return passes
    return passes | {
        name: partial(check, who, operation, arguments)
        for name, (operation, arguments) in others().items()
    }


def check_pass(who: str, part: str) -> dict[str, Any]:
    """Compare one pass of a layer with float64."""
    layer = PathLayer(SHAPE, seed=1)
    layer.served(part, who)
    poison()
    errors = [
        relative_error(own, exact)
        for own, exact in zip(layer.run(part, who), layer.doubled().run(part, "torch"), strict=True)
    ]
    return judged(max(errors))


def check(who: str, operation: str, make: Callable[[], Sequence[Any]]) -> dict[str, Any]:
    """Compare one operation with its plain twin in float64, on the same device."""
    arguments = make()
    with torch.no_grad(), serving(who):
        kernel = choose(operation, *arguments)
        if kernel.backend != BACKENDS[who]:
            raise NotRunError("the backend leaves it to torch")
        poison()
        results = tensors(kernel.run(*arguments))
    with torch.no_grad(), serving("torch"):
        doubled = [_double(argument) for argument in arguments]
        expected = tensors(choose(operation, *doubled).run(*doubled))
    errors = [relative_error(a, b) for a, b in zip(results, expected, strict=True)]
    return judged(max(errors))


def judged(error: float) -> dict[str, Any]:
    """Give the error as figures, or raise where it is above the bound or NaN."""
    if not error <= BOUND:
        raise StepFailedError(f"the error is over the bound of {BOUND:g}", {"error": error})
    return {"error": error}


def tensors(results: Any) -> list[Tensor]:
    """List the results that are not empty."""
    parts = results if isinstance(results, (tuple, list)) else (results,)
    return [part for part in parts if part.numel()]


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def others(device: str = "cuda") -> dict[str, tuple[str, Callable[[], Sequence[Any]]]]:
    """Operations with functions that make their arguments; 16-bit values, weights in float32."""
    generator = torch.Generator(device).manual_seed(2)

    def normal(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device).to(dtype)

    half = torch.float16
    points, images, height, width = SHAPE
    alpha = torch.linspace(0.1, 0.9, points, device=device)

    def channels(number: int) -> Tensor:
        return normal(points, images, 1, number, height * width, dtype=half)

    def rows(features: int) -> Tensor:
        return normal(points, images, height, features, dtype=half)

    def matrix() -> tuple[Tensor, Tensor]:
        return normal(96, 64) / 8, normal(96, 64) / 80

    size = 3 * height * width
    return {
        "linear": (
            "linear",
            lambda: (rows(64), *matrix(), normal(96), normal(96), alpha, None, None),
        ),
        "linear, gradients": (
            "linear_backward",
            lambda: (rows(96), rows(64), *matrix(), alpha, [True, True, True]),
        ),
        "prelu": ("prelu", lambda: (channels(64), normal(64), normal(64) / 10, alpha, None)),
        "squared error": (
            "squared_error",
            lambda: (
                normal(points, images, size, dtype=half),
                normal(images, size),
            ),
        ),
        "squared error, gradient": (
            "squared_error_backward",
            lambda: (
                normal(points, images, size, dtype=half),
                normal(images, size),
                normal(points, images),
            ),
        ),
        "score reduction": (
            "score_reduction",
            lambda: (
                normal(images, 64, 3, 3, 64).movedim(-1, 2),
                normal(64, 3, 3, 64).movedim(-1, 1),
            ),
        ),
    }
