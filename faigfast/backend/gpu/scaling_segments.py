"""Segments of layers between which gradients of 16 bits are brought back into range."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from faigfast.backend.gpu.loss_scaling import GradientScale, ScalingSegment, rescaled, unscaled
from faigfast.engine.points import Moving
from faigfast.engine.samples import Samples

LAYERS_PER_SEGMENT = 8  # about; each change of scale reads and writes a gradient once more


def count_scaling_segments(sample: Sequence[fx.Node], tensors: set[fx.Node]) -> int:
    """Count the segments for the nodes that depend on image and point."""
    layers = sum(1 for node in sample if not tensors.isdisjoint(node.all_input_nodes))
    return max(1, -(-layers // LAYERS_PER_SEGMENT))


class GradientRescaler:
    """Rescales gradients between the segments of one forward.

    Parameters
    ----------
    scale : GradientScale
        Its `last` segment becomes that of this forward.
    values : dict
        Values of nodes, which hold the moving tensors.
    """

    def __init__(self, scale: GradientScale, values: dict[fx.Node, Any]) -> None:
        self.scale = scale
        self.moving = {node: v for node, v in values.items() if isinstance(v, Moving)}
        scale.last = ScalingSegment()

    def begin(self, part: Sequence[fx.Node], values: dict[fx.Node, Any]) -> None:
        """Remove the segment's scale from the gradients of a part's tensors."""
        for node in {n for user in part for n in user.all_input_nodes} & self.moving.keys():
            own = self.moving[node]
            values[node] = replace(own, gradient_sums=unscaled(own.gradient_sums, self.scale.last))

    def pass_on(
        self, values: dict[fx.Node, Any], later: set[fx.Node], images: int, done: set[fx.Node]
    ) -> None:
        """End a segment, if all values that pass on can be scaled image by image.

        Parameters
        ----------
        later : set of Node
            Nodes that have not run, and the output.
        images : int
            N.
        done : set of Node
            Nodes that depend on image and point and have run.
        """
        alive = [node for node in done if node in values and later & node.users.keys()]
        users = {user for node in alive for user in node.users} & later
        if any(getattr(getattr(u.target, "_schema", None), "is_mutable", False) for u in users):
            return
        if not all(isinstance(values[node], Samples) for node in alive):
            return
        passing = [node for node in alive if values[node].data.requires_grad]
        if not passing or any(values[node].data.shape[1] != images for node in passing):
            return
        after = ScalingSegment()
        data = [values[node].data for node in passing]
        views = rescaled(data, self.scale, self.scale.last, after)
        values.update((node, Samples(part)) for node, part in zip(passing, views, strict=True))
        self.scale.last = after
