"""Stretches of layers between which gradients of 16 bits are brought back into range."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from faigfast.backend.gpu.loss_scaling import GradientScale, Stretch, rescaled, unscaled
from faigfast.engine.op_rules import Moving
from faigfast.engine.samples import Folded

LAYERS = 8  # of a stretch, about: a change of scale reads and writes a gradient once more


def count_stretches(sample: Sequence[fx.Node], tensors: set[fx.Node]) -> int:
    """How many stretches the nodes that depend on image and point are cut into."""
    layers = sum(1 for node in sample if not tensors.isdisjoint(node.all_input_nodes))
    return max(1, -(-layers // LAYERS))


class Travel:
    """The stretches of one forward, from the first to that before the loss.

    Parameters
    ----------
    scale : GradientScale
        Whose last stretch this forward's becomes.
    values : dict
        Of the nodes; tensors that move are there.
    """

    def __init__(self, scale: GradientScale, values: dict[fx.Node, Any]) -> None:
        self.scale = scale
        self.moving = {node: v for node, v in values.items() if isinstance(v, Moving)}
        scale.last = Stretch()

    def begin(self, part: Sequence[fx.Node], values: dict[fx.Node, Any]) -> None:
        """Collect the gradients of a part's tensors without the scale of its stretch."""
        for node in {n for user in part for n in user.all_input_nodes} & self.moving.keys():
            own = self.moving[node]
            values[node] = replace(own, sums=unscaled(own.sums, self.scale.last))

    def pass_on(
        self, values: dict[fx.Node, Any], later: set[fx.Node], images: int, done: set[fx.Node]
    ) -> None:
        """End a stretch, where all that goes on can be scaled image by image.

        Parameters
        ----------
        later : set of Node
            What is still to be run, and the output.
        images : int
            N.
        done : set of Node
            Those that depend on image and point and have run.
        """
        alive = [node for node in done if node in values and later & node.users.keys()]
        users = {user for node in alive for user in node.users} & later
        if any(getattr(getattr(u.target, "_schema", None), "is_mutable", False) for u in users):
            return
        if not all(isinstance(values[node], Folded) for node in alive):
            return
        passing = [node for node in alive if values[node].data.requires_grad]
        if not passing or any(values[node].data.shape[1] != images for node in passing):
            return
        after = Stretch()
        data = [values[node].data for node in passing]
        found = rescaled(data, self.scale, self.scale.last, after)
        values.update((node, Folded(part)) for node, part in zip(passing, found, strict=True))
        self.scale.last = after
