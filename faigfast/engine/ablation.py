"""Losses of a target when single kernels, or output channels, go back to the baseline's.

F masked forwards, without what they have in common: values up to the layer are computed once for
all its kernels; a kernel changes one output channel, by a convolution of one input channel with Δ;
a following convolution sees one changed input channel; and the layers behind run many ablations as
the images of one batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from faigfast.engine.losses import losses_of
from faigfast.engine.op_rules import CONVOLUTIONS, argument_names, spatial
from faigfast.engine.points import Moving, Points
from faigfast.engine.run import Plan, Values, path_tensors, prepare, run_nodes
from faigfast.engine.samples import Samples
from faigfast.engine.threads import run_concurrently
from faigfast.integration.objective import Objective
from faigfast.integration.path import WeightPath
from faigfast.ops.activation import activate
from faigfast.ops.one_channel import cpu as _cpu  # noqa: F401  registers its kernel
from faigfast.ops.one_channel.operation import one_channel
from faigfast.ops.path_values import arranged, new_gradient_sums
from faigfast.ops.registry import Use, using

aten = torch.ops.aten

MOST_TOGETHER = 32  # ablations in a batch; more gain nothing
LEAST_SHARED = 8  # ablations of one output channel that are worth a batch of their own


@dataclass(frozen=True)
class Ablated:
    """Kernels of one layer, each ablated alone, or output channels.

    Parameters
    ----------
    outputs : Tensor
        [K], the output channel that each changes, before any pixel shuffle.
    kernels : Tensor, optional
        [K, 2], place of each kernel in the first two dimensions of the weight, as stored; None: all
        kernels of the output channel go back together.
    """

    outputs: Tensor
    kernels: Tensor | None = None

    def __len__(self) -> int:
        """Count the ablations, K."""
        return len(self.outputs)

    def part(self, places: Tensor) -> "Ablated":
        """Take some of the ablations."""
        kernels = None if self.kernels is None else self.kernels[places]
        return Ablated(self.outputs[places], kernels)


class Convolution:
    """A convolution node of a plan, with the target's values, for one image."""

    def __init__(self, node: fx.Node, values: Values) -> None:
        given: dict[str, Any] = dict(zip(argument_names(node.target), node.args, strict=False))
        given |= node.kwargs
        self.node = node
        self.input: fx.Node = given["input"]
        self.residual: fx.Node | None = given.get("residual")
        self.weight = tensor_of(values[given["weight"]])
        bias = given.get("bias")
        self.bias = None if bias is None else tensor_of(values[bias])
        rank = self.weight.ndim - 2
        self.groups: int = given.get("groups", 1)
        transposed = given.get("transposed", "conv_transpose" in str(node.target))
        numbers = (given.get(name, default) for name, default in _GEOMETRY.items())
        stride, padding, dilation, extra = (spatial(value, rank) for value in numbers)
        self.geometry = stride, padding, dilation, transposed, extra
        self.transposed = transposed
        self.shuffle: int = given.get("shuffle", 1)
        self.activation: str = given.get("activation", "none")
        slope = given.get("slope", 0.0)
        self.slope = tensor_of(values[slope]) if isinstance(slope, fx.Node) else slope
        self.scale: float = given.get("scale", 1.0)

    def before_shuffle(self, x: Tensor) -> Tensor:
        """Compute conv(x) + b, [N, O, *spatial], without any pixel shuffle."""
        return aten.convolution(x, self.weight, self.bias, *self.geometry, self.groups)

    def change(self, x: Tensor, delta: Tensor, ablated: Ablated) -> Tensor:
        """Change of each ablation's output channel, [K, *spatial], from Δ as the weight."""
        if ablated.kernels is None:
            return aten.convolution(x, delta, None, *self.geometry, self.groups)[0][ablated.outputs]
        first, second = ablated.kernels.unbind(1)
        inputs = first
        if not self.transposed:
            inputs = second + ablated.outputs // (len(delta) // self.groups) * delta.shape[1]
        kernels = delta[first, second].unsqueeze(1)  # [K, 1, *k]
        return aten.convolution(x[:, inputs], kernels, None, *self.geometry, len(kernels))[0]

    def from_one_channel(
        self, change: Tensor, channel: int, known: Tensor, residual: Tensor | None
    ) -> Tensor:
        """Give the node's value [K, O, *spatial], from a change [K, 1, *spatial] of an input.

        `known` is the value without the change, shuffled, before the activation.
        """
        weight = self.weight[:, channel : channel + 1]
        if self.transposed:
            weight = self.weight[channel : channel + 1]
        slopes, slope = (self.slope, 0.0) if isinstance(self.slope, Tensor) else (None, self.slope)
        return one_channel(
            change, weight, known, residual, slopes, *self.geometry, self.activation, slope,
            self.scale, self.shuffle,
        )  # fmt: skip

    def changed_channels(
        self, z: Tensor, change: Tensor, outputs: Tensor, residual: Tensor | None
    ) -> Tensor:
        """Finish the output channel that each ablation changes.

        Parameters
        ----------
        z : Tensor
            [O, *spatial], from `before_shuffle`.
        change : Tensor
            [K, *spatial], subtracted from channels `outputs` [K] of z.
        residual : Tensor, optional
            [C, *spatial], as the node's value.

        Returns
        -------
        Tensor
            [K, 1, *spatial], of channels outputs // r².
        """
        r, channels = self.shuffle, outputs // self.shuffle**2
        y = (z[outputs] - change).unsqueeze(1)
        if r > 1:
            together = z.unflatten(0, (-1, r * r))[channels]  # [K, r², H, W]
            together[torch.arange(len(outputs)), outputs % (r * r)] = y[:, 0]
            y = aten.pixel_shuffle(together, r)
        slope: Any = self.slope
        if isinstance(slope, Tensor) and slope.numel() > 1:
            slope = slope[channels]
        y = activate(y.transpose(0, 1), self.activation, slope).transpose(0, 1)
        if self.scale != 1:
            y = y * self.scale
        return y if residual is None else y + residual[channels].unsqueeze(1)


_GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}


def tensor_of(value: Any) -> Tensor:
    """Give the target's value of a tensor of the networks."""
    return value.w0 if isinstance(value, Moving) else value


class TargetValues:
    """All values of a plan at the target for one image, and losses where one channel changes.

    Parameters
    ----------
    plan : Plan
        Of the target.
    path : WeightPath
        The line; its end is the target.
    x, gt : Tensor
        One image [1, C, *spatial], and its ground truth.
    objectives : sequence of callable
        J losses of (output, gt).
    use : Use
        Backend of the path operations.
    """

    def __init__(
        self,
        plan: Plan,
        path: WeightPath,
        x: Tensor,
        gt: Tensor,
        objectives: Sequence[Objective],
        use: Use,
    ) -> None:
        self.plan, self.path, self.gt, self.objectives, self.use = plan, path, gt, objectives, use
        given = path_tensors(path)
        for key, value in path.end.items():
            if isinstance(given[key], Moving):
                given[key] = Moving(arranged(value), None, new_gradient_sums(value.shape, 1, value))
        self.alpha = Points.at([1.0], x).alpha
        self._before: dict[fx.Node, Tensor] = {}
        self._shuffled: dict[fx.Node, Tensor] = {}
        self._after: dict[fx.Node, list[fx.Node]] = {}
        self._following: dict[fx.Node, list[Convolution]] = {}
        with torch.no_grad(), using(use):
            self.values = prepare(plan, given, x)
            one = self._points(1)
            for node in plan.sample:  # one by one, since a chain keeps no values inside
                run_nodes(plan, [node], self.values, one)
            self.losses = self._losses(self.values, 1)[:, 0]  # [J]

    def convolution(self, key: str) -> Convolution | None:
        """Give the convolution whose weight is a tensor; None where it is not one node's alone."""
        weight = next(node for node, name in self.plan.tensors.items() if name == key)
        users = [node for node in weight.users if node in self.values]
        if len(users) != 1 or not self._is_convolution(users[0]) or users[0].args[1] is not weight:
            return None
        return Convolution(users[0], self.values)

    def ablated_losses(
        self, convolution: Convolution, delta: Tensor, bias: Tensor | None, ablated: Ablated,
        memory: int | None = None, workers: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
        """Compute the losses of every ablation.

        Parameters
        ----------
        convolution : Convolution
            From `convolution`.
        delta : Tensor
            θ − θ̄ of the layer's weight.
        bias : Tensor, optional
            θ − θ̄ of the layer's bias, where that goes back too.
        ablated : Ablated
            K ablations.
        memory : int, optional
            Bytes for activations.
        workers : int
            Batches at the same time.

        Yields
        ------
        places : Tensor
            Of the ablations in a batch, among the K.
        losses : Tensor
            [J, batch].
        """
        image = self.plan.bytes_of_sample
        together = MOST_TOGETHER
        if memory is not None and image:
            together = max(1, min(together, memory // (image * workers) - 1))
        groups = _batches(ablated.outputs // convolution.shuffle**2, together)
        losses = partial(self._ablated_losses, convolution, delta, bias, ablated)
        yield from zip(
            groups, run_concurrently(lambda _, places: losses(places), groups, workers), strict=True
        )

    def _ablated_losses(
        self, convolution: Convolution, delta: Tensor, bias: Tensor | None, all_ablated: Ablated,
        places: Tensor,
    ) -> Tensor:  # fmt: skip
        ablated = all_ablated.part(places)
        with torch.no_grad(), using(self.use):
            change = convolution.change(self._tensor(convolution.input), delta, ablated)
            if bias is not None:
                change = change + bias[ablated.outputs].view(-1, *[1] * (change.ndim - 1))
            residual = self._residual(convolution)
            channel = convolution.changed_channels(
                self._before_shuffle(convolution)[0], change, ablated.outputs,
                None if residual is None else residual[0],
            )  # fmt: skip
            channels = ablated.outputs // convolution.shuffle**2
            values = self._changed_values(convolution.node, channel, channels)
            return self._losses(values, len(ablated))

    def _changed_values(self, node: fx.Node, channel: Tensor, channels: Tensor) -> Values:
        """Run everything behind a node, of whose value one channel changed in each sample."""
        values, points = dict(self.values), self._points(len(channel))
        rest = self._behind(node)
        own = self._tensor(node)  # [1, C, *spatial]
        first = int(channels[0])
        if bool((channels == first).all()):
            change = channel - own[:, first : first + 1]
            following = self._one_input(node)
            for one in following:
                values[one.node] = _samples(
                    one.from_one_channel(
                        change, first, self._before_activation(one), self._residual(one)
                    )
                )
            done = {one.node for one in following}
            rest = [one for one in rest if one not in done]
        if any(one in rest for one in node.users) or self.plan.output in node.users:
            dense = own.expand(len(channel), *own.shape[1:]).clone(
                memory_format=torch.preserve_format
            )
            dense = arranged(dense)
            dense[torch.arange(len(channel)), channels] = channel[:, 0]
            values[node] = _samples(dense)
        run_nodes(self.plan, rest, values, points, self.plan.output.all_input_nodes)
        return values

    def _one_input(self, node: fx.Node) -> list[Convolution]:
        """Convolutions without groups that take a node's value as their input alone."""
        if node not in self._following:
            users = [
                Convolution(one, self.values)
                for one in node.users
                if self._is_convolution(one) and one.args[0] is node
            ]
            self._following[node] = [
                one
                for one in users
                if one.groups == 1 and one.residual not in (node, *self._behind(node))
            ]
        return self._following[node]

    def _behind(self, node: fx.Node) -> list[fx.Node]:
        """Nodes that depend on a node, in the order in which they run."""
        if node not in self._after:
            reached = {node}
            for one in self.plan.sample:
                if reached & set(one.all_input_nodes):
                    reached.add(one)
            self._after[node] = [one for one in self.plan.sample if one in reached - {node}]
        return self._after[node]

    def _before_shuffle(self, convolution: Convolution) -> Tensor:
        """Compute conv(x) + b of the target once, [1, O, *spatial], before any shuffle."""
        node = convolution.node
        if node not in self._before:
            self._before[node] = convolution.before_shuffle(self._tensor(convolution.input))
        return self._before[node]

    def _before_activation(self, convolution: Convolution) -> Tensor:
        """Give the target's value before the activation, [1, C, *spatial]."""
        node = convolution.node
        if node not in self._shuffled:
            z = self._before_shuffle(convolution)
            if convolution.shuffle > 1:
                z = aten.pixel_shuffle(z, convolution.shuffle)
            self._shuffled[node] = arranged(z)
        return self._shuffled[node]

    def _is_convolution(self, node: fx.Node) -> bool:
        """Whether a node is a convolution of an image by a tensor of the networks."""
        if node.target not in CONVOLUTIONS:
            return False
        padding = dict(zip(argument_names(node.target), node.args, strict=False)).get("padding", 0)
        weight = node.args[1]
        return (
            isinstance(weight, fx.Node)
            and weight in self.plan.tensors
            and not isinstance(padding, str)
            and node.args[0].meta["val"].ndim == weight.meta["val"].ndim  # type: ignore[union-attr]
        )

    def _residual(self, convolution: Convolution) -> Tensor | None:
        return None if convolution.residual is None else self._tensor(convolution.residual)

    def _tensor(self, node: fx.Node) -> Tensor:
        """Give the target's value of a node for the image, [1, C, *spatial]."""
        value = self.values[node]
        return value.data[0, 0] if isinstance(value, Samples) else tensor_of(value)

    def _points(self, samples: int) -> Points:
        """Treat ablations as the images of one point."""
        return Points((1.0,), samples, self.alpha)

    def _losses(self, values: Values, samples: int) -> Tensor:
        out = map_arg(self.plan.output.args[0], values.__getitem__)
        gt = self.gt.expand(samples, *self.gt.shape[1:])
        points = self._points(samples)
        return torch.stack([losses_of(out, points, gt, one)[0] for one in self.objectives])


def _samples(value: Tensor) -> Samples:
    """Set values [K, ...] of one point as its images."""
    return Samples(value.unsqueeze(0).unsqueeze(2))


def _batches(channels: Tensor, most: int) -> list[Tensor]:
    """Group ablations of one changed channel, many to a batch, and join small groups."""
    batches, small = [], []
    for channel in channels.unique():
        places = (channels == channel).nonzero().flatten()
        if len(places) >= LEAST_SHARED:
            batches += places.split(most)
        else:
            small.append(places)
    return [*batches, *(torch.cat(small).split(most) if small else ())]
