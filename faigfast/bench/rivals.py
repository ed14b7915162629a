"""Contenders that compute FAIG: rival implementations in plain PyTorch, and faigfast's backends.

A contender prepares itself for a problem and returns the function to time. The function computes
the scores [N, F] over all convolution weights in flat order and the losses [N, 2] of baseline and
target. Preparing may copy the module or arrange for compilation; everything that depends on
the values of weights and images is computed inside.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from faigfast.attribution.one_call import attribute
from faigfast.backend.catalogue import backends
from faigfast.bench.workloads import Problem
from faigfast.filters.index import FilterIndex
from faigfast.integration.quadrature import quadrature

State = dict[str, Tensor]
Scored = tuple[Tensor, Tensor]
Run = Callable[[], Scored]
Contender = Callable[[Problem], Run]

VMAP_PIXELS = 8 * 64 * 64  # points times pixels of one image that vmap may hold at once


def _points(problem: Problem) -> list[tuple[float, float]]:
    """List nodes and weights of the problem's rule."""
    rule = quadrature(problem.rule, problem.steps)
    return list(zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True))


def _squared_error(output: Tensor, gt: Tensor) -> Tensor:
    return (output - gt).square().sum()


def _kernel_sums(totals: Iterable[Tensor], deltas: Iterable[Tensor]) -> Tensor:
    """Sum |Δ·total| over each kernel, of one image: [F]."""
    pairs = zip(totals, deltas, strict=True)
    return torch.cat([(t * d).abs().sum(tuple(range(2, t.ndim))).flatten() for t, d in pairs])


def authors(problem: Problem) -> Run:
    """Compute the authors' way: a new network and `load_state_dict` a point, one image, NCHW.

    Biases get gradients too, since their scripts do not exclude them. The network is a
    deep copy, which costs less than their constructor's initialisation. Their scripts run each pair
    of degradations in both directions; here one direction is timed.
    """
    layers = FilterIndex.of(problem.target).layers

    def network(alpha: float) -> nn.Module:
        first, last = problem.baseline.state_dict(), problem.target.state_dict()
        net = copy.deepcopy(problem.target)
        net.load_state_dict({key: first[key] + alpha * (last[key] - first[key]) for key in last})
        return net

    def run() -> Scored:
        first, last = problem.baseline.state_dict(), problem.target.state_dict()
        scores, losses = [], []
        for x, gt in problem.images():
            with torch.no_grad():
                end_losses = [_squared_error(network(alpha)(x), gt).item() for alpha in (0.0, 1.0)]
            totals = [torch.zeros_like(last[layer]) for layer in layers]
            for alpha, weight in _points(problem):
                net = network(alpha)
                _squared_error(net(x), gt).backward()
                for total, layer in zip(totals, layers, strict=True):
                    gradient = net.get_parameter(layer).grad
                    assert gradient is not None
                    total += weight * gradient
            scores.append(_kernel_sums(totals, (last[layer] - first[layer] for layer in layers)))
            losses.append(end_losses)
        return torch.stack(scores), torch.tensor(losses, dtype=torch.float64)

    return run


def _forward(net: nn.Module, x: Tensor, gt: Tensor) -> Tensor:
    return _squared_error(net(x), gt)


def loop(
    problem: Problem,
    forward: Callable[[nn.Module, Tensor, Tensor], Tensor] = _forward,
    kind: torch.dtype | None = None,
) -> Run:
    """Run the tuned loop: channels-last, weights written in place once a point for all images.

    Only convolution weights get gradients: neither biases nor the image take part in backward.
    Images run one at a time, since gradients are needed per image. This loop is the yardstick. With
    a `kind` of 16 bits, network and images have it, but not the path, the loss and the sums.
    """
    layers = FilterIndex.of(problem.target).layers
    net = copy.deepcopy(problem.target).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.to(kind or problem.dtype).requires_grad_(False)
    weights = [net.get_parameter(layer).requires_grad_() for layer in layers]
    state = net.state_dict()  # detached, of the same memory

    def in_memory_format(model: nn.Module) -> State:
        source = model.state_dict()
        return {
            key: torch.empty_like(value, dtype=source[key].dtype).copy_(source[key])
            for key, value in state.items()
        }

    def run() -> Scored:
        first, last = in_memory_format(problem.baseline), in_memory_format(problem.target)
        images = [
            [part.contiguous(memory_format=torch.channels_last) for part in image]
            for image in ((x.to(kind or x.dtype), gt) for x, gt in problem.images())
        ]

        def move_to(alpha: float) -> None:
            for key, value in state.items():
                if not value.is_floating_point():  # integer buffers are the target's
                    continue
                if kind is None:
                    torch.lerp(first[key], last[key], alpha, out=value)
                else:
                    value.copy_(torch.lerp(first[key], last[key], alpha))

        losses = torch.empty(len(images), 2, dtype=torch.float64)
        for column, alpha in enumerate((0.0, 1.0)):
            move_to(alpha)
            with torch.no_grad():
                for n, (x, gt) in enumerate(images):
                    losses[n, column] = forward(net, x, gt)
        like = [last[layer] for layer in layers]
        totals = [[torch.zeros_like(weight) for weight in like] for _ in images]
        for alpha, share in _points(problem):
            move_to(alpha)
            for total, (x, gt) in zip(totals, images, strict=True):
                gradients = torch.autograd.grad(forward(net, x, gt), weights)
                for part, gradient in zip(total, gradients, strict=True):
                    part.add_(gradient, alpha=share)
        deltas = [last[layer] - first[layer] for layer in layers]
        return torch.stack([_kernel_sums(total, deltas) for total in totals]), losses

    return run


def _forward_narrow(net: nn.Module, x: Tensor, gt: Tensor) -> Tensor:
    return _squared_error(net(x).to(gt.dtype), gt)


def compiled(problem: Problem, kind: torch.dtype | None = None) -> Run:
    """Run the tuned loop with forward and backward compiled, as one graph of fixed shape.

    Raises
    ------
    ValueError
        If the images have several sizes: every size would be compiled separately.
    """
    sizes = len({x.shape for x, _ in problem.images()})
    if sizes > 1:
        raise ValueError(f"{sizes} sizes of images, each of which it would compile by itself")
    torch.compiler.reset()  # torch limits the number of shapes compiled for one function
    forward = _forward if kind is None else _forward_narrow
    return loop(problem, torch.compile(forward, fullgraph=True, dynamic=False), kind)


def vmapped(problem: Problem) -> Run:
    """Map `grad` over points by `torch.func.vmap`, one image at a time, in chunks."""
    layers = FilterIndex.of(problem.target).layers

    def run() -> Scored:
        first, last = problem.baseline.state_dict(), problem.target.state_dict()
        # Integer buffers are the target's.
        moving = [key for key, value in last.items() if value.is_floating_point()]
        deltas = {key: last[key] - first[key] for key in moving}

        def value(weights: State, rest: State, x: Tensor, gt: Tensor) -> Tensor:
            return _squared_error(functional_call(problem.target, {**rest, **weights}, (x,)), gt)

        def gradient(alpha: Tensor, x: Tensor, gt: Tensor) -> State:
            rest = last | {key: first[key] + alpha * delta for key, delta in deltas.items()}
            return grad(value)({layer: rest.pop(layer) for layer in layers}, rest, x, gt)

        scores, losses = [], []
        for x, gt in problem.images():
            points = x.new_tensor(_points(problem))  # [P, 2]
            chunk = max(1, VMAP_PIXELS // x[0, 0].numel())
            with torch.no_grad():
                losses.append([value({}, state, x, gt).item() for state in (first, last)])
            totals = [torch.zeros_like(deltas[layer]) for layer in layers]
            for part in points.split(chunk):
                gradients = vmap(gradient, (0, None, None))(part[:, 0], x, gt)
                for total, layer in zip(totals, layers, strict=True):
                    total += torch.tensordot(part[:, 1], gradients[layer], 1)
            scores.append(_kernel_sums(totals, (deltas[layer] for layer in layers)))
        return torch.stack(scores), torch.tensor(losses, dtype=torch.float64)

    return run


def own(backend: str, problem: Problem, precision: str = "auto") -> Run:
    """Call `faigfast.attribute` with one of its backends, or "auto"."""

    def run() -> Scored:
        result = attribute(
            problem.baseline,
            problem.target,
            problem.batch,
            rule=problem.rule,
            steps=problem.steps,
            backend=backend,
            precision=precision,
        )
        return result.scores(), result.losses[0]

    return run


RIVALS: dict[str, Contender] = {
    "authors": authors,
    "loop": loop,
    "vmap": vmapped,
    "compile": compiled,
}


# In 16 bits, slower on a CPU.
NARROW: dict[str, Contender] = {
    "loop-fp16": partial(loop, forward=_forward_narrow, kind=torch.float16),
    "compile-fp16": partial(compiled, kind=torch.float16),
}


def contenders(device: torch.device | str = "cpu") -> dict[str, Contender]:
    """List the contenders: the rivals, "faigfast", and "faigfast-…" for every backend.

    On a CPU "faigfast" takes the backend that "auto" chooses, and the others are the available
    backends. On other devices they are all backends, in float32 and float16, so that a missing
    backend says why.
    """
    of_faigfast: dict[str, Contender]
    if torch.device(device).type == "cpu":
        available = (backend.name for backend in backends().values() if backend.available)
        of_faigfast = {f"faigfast-{name}": partial(own, name) for name in available}
        return RIVALS | {"faigfast": partial(own, "auto")} | of_faigfast
    of_faigfast = {}
    for name in ("torch", "triton", "cuda"):
        of_faigfast[f"faigfast-{name}"] = partial(own, name, precision="fp32")
        of_faigfast[f"faigfast-{name}-fp16"] = partial(own, name, precision="fp16")
    return RIVALS | NARROW | of_faigfast
