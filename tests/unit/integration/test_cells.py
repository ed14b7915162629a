"""Cells, and slopes averaged over them."""

import pytest
import torch

from faigfast.integration.cells import cells_of, mean_slope
from faigfast.integration.quadrature import quadrature


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_cells_cover_the_line_and_hold_their_nodes(steps):
    rule = quadrature("averaged", steps)
    assert rule.cells[0, 0] == 0 and rule.cells[-1, 1] == 1
    assert (rule.cells[1:, 0] == rule.cells[:-1, 1]).all()
    assert (rule.cells[:, 0] < rule.nodes).all() and (rule.nodes < rule.cells[:, 1]).all()
    assert (rule.cells[:, 1] - rule.cells[:, 0]) == pytest.approx(rule.weights)
    assert rule.nodes.tolist() == quadrature("graded", steps).nodes.tolist()
    (step,) = rule.steps()
    assert step.cells is rule.cells


def along(z, nodes, alpha):
    """Values [A, E] at places α, straight through z [P, E] at the nodes, and on beyond them."""
    upper = torch.searchsorted(nodes, alpha).clamp(1, len(nodes) - 1)
    low, high = nodes[upper - 1], nodes[upper]
    return torch.lerp(z[upper - 1], z[upper], ((alpha - low) / (high - low))[:, None])


@pytest.mark.parametrize("slope", [0.0, 0.2, -0.5])
def test_mean_slope_is_the_integral_over_the_cell(slope):
    rule = quadrature("averaged", 5)
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(5, 200, generator=generator, dtype=torch.float64)
    nodes = torch.from_numpy(rule.nodes)
    for s, cell in enumerate(cells_of(rule.nodes.tolist(), rule.cells.tolist())):
        first, last = rule.cells[s]
        alpha = first + (last - first) * (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        expected = torch.where(along(z, nodes, alpha) > 0, 1.0, slope).double().mean(0)
        averaged = mean_slope(z[s], z[cell.before], z[cell.after], cell, slope)
        torch.testing.assert_close(averaged, expected, rtol=0, atol=1e-3)


def test_a_single_node_and_values_that_stay_have_the_slope_at_the_point():
    z = torch.tensor([-1.0, 0.0, 2.0])
    (cell,) = cells_of([0.5], [[0.0, 1.0]])
    assert mean_slope(z, z, z, cell, 0.1).tolist() == pytest.approx([0.1, 0.1, 1.0])


def test_infinite_and_missing_values_do_not_hide():
    (cell, _) = cells_of([0.25, 0.75], [[0.0, 0.5], [0.5, 1.0]])
    z = torch.tensor([torch.nan, 1.0])
    assert mean_slope(z, z, z.flip(0), cell, 0.0).isnan().all()
