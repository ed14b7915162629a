"""Arguments of a path convolution in groups, and the registration of kernels that take them so."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from faigfast.ops.activation import ACTIVATIONS
from faigfast.ops.registry import kernel


class PathParameters(NamedTuple):
    """Tensors on the line: baseline and Δ of weight, bias and slope, and the points.

    Parameters
    ----------
    w0, dw : Tensor
        [O, C/groups, *k] ([C, O/groups, *k] transposed); dw None: the weight does not move.
    b0, db : Tensor, optional
        [O], bias.
    s0, ds : Tensor, optional
        [O] or [1], slope of prelu.
    alpha : Tensor
        [P].
    """

    w0: Tensor
    dw: Tensor | None
    b0: Tensor | None
    db: Tensor | None
    s0: Tensor | None
    ds: Tensor | None
    alpha: Tensor

    def without_bias(self) -> "PathParameters":
        """Leave the bias out."""
        return self._replace(b0=None, db=None)

    def without_slope(self) -> "PathParameters":
        """Leave the slope out."""
        return self._replace(s0=None, ds=None)


class ConvSpec(NamedTuple):
    """Everything of a path convolution that is no tensor, in the order of its schema.

    Parameters
    ----------
    stride, padding, dilation, transposed, output_padding, groups
        As in `torch.convolution`; the defaults are a 3×3 that keeps the size.
    activation : str
        One of `faigfast.ops.activation.ACTIVATIONS`.
    slope : float
        Slope of leaky_relu.
    scale : float
        Factor before the residual.
    shuffle : int
        r of `torch.pixel_shuffle`, after the bias; 1: none.
    """

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (1, 1)
    dilation: Sequence[int] = (1, 1)
    transposed: bool = False
    output_padding: Sequence[int] = (0, 0)
    groups: int = 1
    activation: str = "none"
    slope: float = 0.0
    scale: float = 1.0
    shuffle: int = 1

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Arguments of `aten.convolution` after the bias."""
        return self[:6]

    @property
    def is_same_3x3(self) -> bool:
        """Whether a 3×3 of this geometry keeps the size."""
        lists = (tuple(part) for part in (self.stride, self.padding, self.dilation))
        return (*lists, self.transposed, self.groups) == ((1, 1), (1, 1), (1, 1), False, 1)

    def without_epilogue(self) -> "ConvSpec":
        """Leave the activation and the scale to the caller."""
        return self._replace(activation="none", scale=1.0)

    def keeps_more(self, residual: Any) -> bool:
        """Whether the gradient of the activation needs more than y."""
        changed = self.scale != 1 or residual is not None
        return self.activation != "none" and (ACTIVATIONS[self.activation] or changed)


Forward = tuple[Tensor, PathParameters, Tensor | None, ConvSpec]  # x, parameters, residual, spec


class Backward(NamedTuple):
    """Arguments of a convolution's backward, as `conv_backward` explains them."""

    gy: Tensor
    x: Tensor
    saved: Tensor
    parameters: PathParameters
    images: int
    needs: Sequence[bool]
    spec: ConvSpec


def forward_of(args: Sequence[Any]) -> Forward:
    """Group the arguments of `faigfast::conv`."""
    return args[0], PathParameters(*args[1:8]), args[11], ConvSpec(*args[12:])


def backward_of(args: Sequence[Any]) -> Backward:
    """Group the arguments of `faigfast::conv_backward`, which has no Δ of the bias."""
    gy, x, saved, w0, dw, b0, s0, ds, alpha, images, needs, *spec = args
    parameters = PathParameters(w0, dw, b0, None, s0, ds, alpha)
    return Backward(gy, x, saved, parameters, images, needs, ConvSpec(*spec))


def conv_kernel(
    name: str, refuses: Callable[..., str], backend: str, notes_refusal: bool = True
) -> Callable[..., Any]:
    """Register a kernel of `faigfast::conv`; it and `refuses` take what `Forward` lists."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        kernel(name, "conv", lambda *args: refuses(*forward_of(args)), backend, notes_refusal)(
            lambda *args: run(*forward_of(args))
        )
        return run

    return register


def conv_backward_kernel(
    name: str, refuses: Callable[[Backward], str], backend: str, notes_refusal: bool = True
) -> Callable[..., Any]:
    """Register a kernel of `faigfast::conv_backward`; it and `refuses` take a `Backward`."""

    def register(run: Callable[[Backward], Any]) -> Callable[[Backward], Any]:
        why = (lambda *args: refuses(backward_of(args)), backend, notes_refusal)
        kernel(name, "conv_backward", *why)(lambda *args: run(backward_of(args)))
        return run

    return register
