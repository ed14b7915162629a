"""Whether single points of the line side by side are faster than many together, on a CPU."""

from torch import fx

from faigfast.engine.op_rules import CONVOLUTIONS, needs_vmap

# Share of operations under vmap, as of reshapes and norms in attention; above it, single points
# took 0.65 to 1.1 of the time.
MOST_MAPPED = 0.45
MOST_COMPUTED = 0.25  # share of convolutions whose kernels are computed


def better_side_by_side(graph: fx.Graph) -> bool:
    """Whether a graph has mostly operations, or many kernels, that one sample serves better.

    Many samples cost these operations more Python than they save. Computed kernels, as by weight
    norm, differ between samples, which our kernels would take one by one.
    """
    operations = [node.target for node in graph.nodes if node.op == "call_function"]
    mapped = sum(map(needs_vmap, operations))
    computed = [
        node.all_input_nodes[-1 if len(node.all_input_nodes) < 2 else 1].op == "call_function"
        for node in graph.nodes
        if node.target in CONVOLUTIONS
    ]
    return mapped > MOST_MAPPED * len(operations) or sum(computed) > MOST_COMPUTED * len(computed)
