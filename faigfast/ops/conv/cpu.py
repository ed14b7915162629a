"""Path convolutions by kernels in C++: float32 on a CPU."""

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.io.text_table import counted
from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv import operation as _conv  # noqa: F401  registers the operation
from faigfast.ops.conv.cpu_queue import FUSED, FUSED_BACKWARD, Queue
from faigfast.ops.conv.cpu_weights import LEAST_CHANNELS, as_weights, taps_of
from faigfast.ops.conv.spec import (
    Backward,
    ConvSpec,
    PathParameters,
    conv_backward_kernel,
    conv_kernel,
)
from faigfast.ops.path_values import dense, every_point, on_line, pitched

# Every thread holds the weights of a point and their gradient sums, except those cut into squares.
MOST_WEIGHTS = 1 << 20


def refuses(x: Tensor, w0: Tensor, spec: ConvSpec) -> str:
    """Say why the kernels do not serve a convolution of x by weights w0; "" if they do."""
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    if x.device.type != "cpu":
        return f"tensors are on {x.device}"
    for part in (x, w0):  # read through addresses, so neither may be anything else
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
    kind, grid = taps_of(w0, spec)
    size = "×".join(map(str, w0.shape[2:]))
    if len(grid) != 2:
        return f"the kernel is {size}, not of two dimensions"
    if kind != "squares" and spec.shuffle > 1:
        return f"its result is shuffled, which a kernel of {size} that runs as {kind!r} does not do"
    if kind != "squares" and w0.numel() > MOST_WEIGHTS:
        return f"a kernel of {size} has {w0.numel()} weights, more than {MOST_WEIGHTS}"
    if kind == "direct" and w0.shape[1] < LEAST_CHANNELS:
        few = counted(w0.shape[1], "channel")
        return f"{few} to a group on one side are too few for this kernel of {size}, tap by tap"
    return "" if x.numel() else "there is nothing to compute"


@conv_kernel("simd", lambda x, parameters, _, spec: refuses(x, parameters.w0, spec), "cpu")
def conv(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv`."""
    activation, keeps = spec.activation, spec.keeps_more(residual)
    fused = activation in FUSED
    epilogue_in_kernel = fused and not keeps  # else backward needs a value before the last step
    rest = dense(residual) if epilogue_in_kernel and residual is not None else None
    in_kernel = spec if epilogue_in_kernel else spec._replace(scale=1.0)
    if not fused:
        in_kernel = spec.without_epilogue()
    queue = Queue()
    pixels = queue.convolve(pitched(x), parameters, rest, in_kernel)
    queue.run()
    y = z = pixels.movedim(-1, 2)
    if not fused:
        y = torch.empty_like(z)
        s0, ds = parameters.s0, parameters.ds
        for p, a in enumerate(parameters.alpha.unbind()):
            y[p] = activate(z[p], activation, spec.slope if s0 is None else on_line(s0, ds, a))
    if not keeps:
        return y, x.new_empty(0)
    saved = z if ACTIVATIONS[activation] else y
    if residual is not None:
        y = torch.add(residual, y, alpha=spec.scale)
    elif spec.scale != 1:
        y = y * spec.scale
    return y, saved


@conv_backward_kernel("simd", lambda b: refuses(b.x, b.parameters.w0, b.spec), "cpu")
def conv_backward(b: Backward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv_backward`."""
    gy, x, parameters, spec = b.gy, b.x, b.parameters, b.spec
    if spec.activation not in FUSED_BACKWARD:
        gy = activation_backward(gy * spec.scale, b.saved, spec.activation, spec.slope)
        spec = spec.without_epilogue()
    points = len(parameters.alpha)
    saved = None if spec.activation == "none" else every_point(dense(b.saved), points)
    queue = Queue()
    gx, gw, gb, gs = queue.convolve_backward(
        every_point(dense(gy), points), saved, pitched(x), parameters, None, b.images, b.needs,
        spec,
    )  # fmt: skip
    queue.run()
    if gw is not None:
        gw = as_weights(gw, parameters.w0, taps_of(parameters.w0, spec))
    if gs is not None and parameters.s0 is not None and parameters.s0.numel() == 1:
        gs = gs.sum(1, keepdim=True)
    return (
        x.new_empty(0) if gx is None else gx.movedim(-1, 2),
        x.new_empty(0) if gw is None else gw,
        x.new_empty(0) if gb is None else gb,
        x.new_empty(0) if gs is None else gs,
    )
