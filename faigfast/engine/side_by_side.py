"""Whether single points of the line side by side are faster than many together, on a CPU."""

from torch import fx, nn

from faigfast.engine.op_rules import CONVOLUTIONS

# Share of linear layers in a transformer; above it, single points took 0.6 to 1.0 of the time.
MOST_LINEAR = 0.25
# Convolutions of one pixel or channel; above it (Restormer), single points took 0.55 of the time.
MOST_SMALL = 200


def better_side_by_side(network: nn.Module) -> bool:
    """Whether a network is a transformer, or has many small convolutions."""
    return _linear(network) > MOST_LINEAR or _small_convolutions(network) > MOST_SMALL


def mostly_computed_weights(graph: fx.Graph) -> bool:
    """Whether a network computes most of its convolutions' weights, as weight norm does.

    Samples then differ in their weights, which our kernels would take one by one.
    """
    computed = [
        node.all_input_nodes[-1 if len(node.all_input_nodes) < 2 else 1].op == "call_function"
        for node in graph.nodes
        if node.target in CONVOLUTIONS
    ]
    return 4 * sum(computed) > len(computed)


def _small_convolutions(network: nn.Module) -> int:
    """Count convolutions of one pixel or one channel; 0 where larger ones have most weights."""
    small, weights = 0, {True: 0, False: 0}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            is_small = layer.kernel_size == (1, 1) or layer.groups == layer.in_channels > 1
            window = layer.kernel_size[0] * layer.kernel_size[1]
            weights[is_small] += layer.in_channels * layer.out_channels * window // layer.groups
            small += is_small
    return small if weights[True] > weights[False] else 0


def _linear(network: nn.Module) -> float:
    """Share of linear weights in a transformer's parameters; 0 for other networks."""
    layers = list(network.modules())
    if not any(isinstance(layer, nn.LayerNorm | nn.MultiheadAttention) for layer in layers):
        return 0.0
    # Sizes alone, since reading a parametrised weight may change the network.
    linear = sum(
        layer.in_features * layer.out_features if isinstance(layer, nn.Linear)
        else 3 * layer.embed_dim**2
        for layer in layers if isinstance(layer, nn.Linear | nn.MultiheadAttention)
    )  # fmt: skip
    return linear / max(1, sum(part.numel() for part in network.parameters()))
