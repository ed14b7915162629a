import math

import numpy as np
import pytest

from faigfast.integration.quadrature import RULES, graded_with_ends, quadrature

# Legendre and Kronrod points from the tables of QUADPACK (qk15), on [-1, 1].
K15_NODES = [
    0.991455371120812639206854697526329,
    0.949107912342758524526189684047851,
    0.864864423359769072789712788640926,
    0.741531185599394439863864773280788,
    0.586087235467691130294144691041653,
    0.405845151377397166906606412076961,
    0.207784955007898467600689403773245,
    0.0,
]
K15_WEIGHTS = [
    0.022935322010529224963732008058970,
    0.063092092629978553290700663189204,
    0.104790010322250183839876322541518,
    0.140653259715525918745189590510238,
    0.169004726639267902826583426598550,
    0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
    0.209482141084727828012999174891714,
]
G7_WEIGHTS = [
    0.129484966168869693270611432679082,
    0.279705391489276667901467771423780,
    0.381830050505118944950369775488975,
    0.417959183673469387755102040816327,
]
SYMMETRIC = ("midpoint", "trapezoid", "gauss-legendre", "gauss-kronrod")


def rule_error(rule, power, weights=None):
    """Error of the rule on α^power over [0, 1]."""
    weights = rule.weights if weights is None else weights
    return math.fsum(w * a**power for a, w in zip(rule.nodes, weights, strict=True)) - 1 / (
        power + 1
    )


def exact_to(rule, weights=None):
    """Largest degree up to which the rule is exact to rounding."""
    degree = 0
    while degree < 60 and abs(rule_error(rule, degree + 1, weights)) < 1e-14:
        degree += 1
    return degree


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 333])
def test_left_is_the_authors_rule_to_the_bit(steps):
    rule = quadrature("left", steps)
    assert rule.nodes.tolist() == [1 - s / steps for s in range(steps)]
    assert rule.weights.tolist() == [1 / steps] * steps
    assert rule.nodes.dtype == rule.weights.dtype == np.float64
    assert rule.embedded is None


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 333])
def test_right_starts_below_the_target_and_ends_at_the_baseline(steps):
    rule = quadrature("right", steps)
    assert rule.nodes.tolist() == [1 - (s + 1) / steps for s in range(steps)]
    assert rule.nodes[-1] == 0
    left = quadrature("left", steps)
    np.testing.assert_allclose(np.sort(1 - rule.nodes), np.sort(left.nodes), rtol=0, atol=2e-16)
    assert rule.weights.tolist() == left.weights.tolist()


def test_midpoint_and_trapezoid_closed_forms():
    assert quadrature("midpoint", 4).nodes.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert quadrature("midpoint", 4).weights.tolist() == [0.25] * 4
    assert quadrature("midpoint", 1).nodes.tolist() == [0.5]
    assert quadrature("trapezoid", 5).nodes.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert quadrature("trapezoid", 5).weights.tolist() == [0.125, 0.25, 0.25, 0.25, 0.125]
    assert quadrature("trapezoid", 2).weights.tolist() == [0.5, 0.5]


def test_gauss_legendre_closed_forms():
    one, two, three = (quadrature("gauss-legendre", n) for n in (1, 2, 3))
    assert one.nodes.tolist() == [0.5] and one.weights.tolist() == [1]
    half = 1 / (2 * math.sqrt(3))
    np.testing.assert_allclose(two.nodes, [0.5 - half, 0.5 + half], rtol=0, atol=1e-15)
    np.testing.assert_allclose(two.weights, [0.5, 0.5], rtol=0, atol=1e-15)
    wide = math.sqrt(0.6) / 2
    np.testing.assert_allclose(three.nodes, [0.5 - wide, 0.5, 0.5 + wide], rtol=0, atol=1e-15)
    np.testing.assert_allclose(three.weights, [5 / 18, 8 / 18, 5 / 18], rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [4, 9, 32, 100, 257])
def test_gauss_legendre_is_numpys(steps):
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    rule = quadrature("gauss-legendre", steps)
    np.testing.assert_allclose(rule.nodes, (nodes + 1) / 2, rtol=0, atol=2e-15)
    np.testing.assert_allclose(rule.weights, weights / 2, rtol=0, atol=2e-14)


def test_kronrod_15_is_quadpacks():
    rule = quadrature("gauss-kronrod", 15)
    nodes = np.array([-x for x in K15_NODES[:-1]] + K15_NODES[::-1])
    np.testing.assert_allclose(2 * rule.nodes - 1, nodes, rtol=0, atol=1e-15)
    weights = np.array(K15_WEIGHTS[:-1] + K15_WEIGHTS[::-1])
    np.testing.assert_allclose(2 * rule.weights, weights, rtol=0, atol=1e-15)
    gauss = np.array(G7_WEIGHTS[:-1] + G7_WEIGHTS[::-1])
    np.testing.assert_allclose(2 * rule.embedded[1::2], gauss, rtol=0, atol=1e-15)
    assert not rule.embedded[::2].any()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 15])
def test_degrees_of_exactness(n):
    gauss = quadrature("gauss-legendre", n)
    assert exact_to(gauss) == 2 * n - 1 or (n > 8 and exact_to(gauss) > 2 * n - 1)
    kronrod = quadrature("gauss-kronrod", 2 * n + 1)
    # By symmetry, an odd n gains a degree.
    assert exact_to(kronrod) >= 3 * n + 1 + n % 2
    assert exact_to(kronrod, kronrod.embedded) >= 2 * n - 1


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_kronrod_and_its_embedded_rule_are_no_more_exact_than_theory(n):
    rule = quadrature("gauss-kronrod", 2 * n + 1)
    expected = 5 if n == 1 else 3 * n + 1 + n % 2
    assert exact_to(rule) == expected
    assert exact_to(rule, rule.embedded) == 2 * n - 1


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 10, 20, 30, 75])
def test_kronrod_extends_gauss(n):
    kronrod, gauss = quadrature("gauss-kronrod", 2 * n + 1), quadrature("gauss-legendre", n)
    assert len(kronrod.nodes) == len(kronrod.weights) == len(kronrod.embedded) == 2 * n + 1
    np.testing.assert_allclose(kronrod.nodes[1::2], gauss.nodes, rtol=0, atol=1e-14)
    assert (kronrod.weights > 0).all()
    np.testing.assert_allclose(kronrod.embedded[1::2], gauss.weights, rtol=1e-12)
    assert kronrod.embedded.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [3, 5, 11, 101])
def test_every_rule_has_steps_nodes_within_the_line_and_weights_of_sum_one(rule, steps):
    quad = quadrature(rule, steps)
    assert quad.nodes.shape == quad.weights.shape == (steps,)
    assert quad.nodes.dtype == quad.weights.dtype == np.float64
    assert quad.nodes.min() >= 0 and quad.nodes.max() <= 1
    assert len(set(quad.nodes.tolist())) == steps
    assert math.fsum(quad.weights) == pytest.approx(1, abs=1e-15)
    assert rule_error(quad, 1) == pytest.approx(
        {"left": 0.5 / steps, "right": -0.5 / steps}.get(rule, 0), abs=1e-15
    )


@pytest.mark.parametrize("rule", SYMMETRIC)
@pytest.mark.parametrize("steps", [3, 9, 31])
def test_symmetric_rules_are_symmetric(rule, steps):
    quad = quadrature(rule, steps)
    np.testing.assert_allclose(quad.nodes + quad.nodes[::-1], 1, rtol=0, atol=3e-16)
    np.testing.assert_allclose(quad.weights, quad.weights[::-1], rtol=1e-15)


@pytest.mark.parametrize("rule", ["left", "right"])
@pytest.mark.parametrize("steps", [1, 20, 100, 1000])
@pytest.mark.parametrize("function", [np.exp, lambda a: np.sin(3 * a + 1), lambda a: 1 / (1 + a)])
def test_emulation_predicts_the_sum_of_many_points(rule, steps, function):
    many, few = quadrature(rule, steps), quadrature(rule, steps, emulate=True)
    assert len(few.nodes) == 17
    sum_of_many = many.weights @ function(many.nodes)
    predicted = few.weights @ function(few.nodes)
    exact = quadrature("gauss-legendre", 40)
    exact = exact.weights @ function(exact.nodes)
    left_out = abs(sum_of_many - exact)
    inner = graded_with_ends(17)
    inner = inner.weights @ function(inner.nodes) - exact
    assert abs(inner) < 2e-4
    assert abs(predicted - sum_of_many) < left_out * 2 / steps + abs(inner)
    # The remainder is the next Euler–Maclaurin term, (g'(1) − g'(0)) / 12 S².
    slope = (function(1.0) - function(1 - 1e-6)) - (function(1e-6) - function(0.0))
    rest = predicted - sum_of_many - inner
    assert rest == pytest.approx(-slope / 1e-6 / 12 / steps**2, rel=0.3)


def test_emulations_nodes_and_weights():
    t = np.arange(17) / 16
    shares = 0.6 + 2.4 * t * (1 - t)  # φ′
    shares[[0, -1]] /= 2
    shares /= shares.sum()
    left, right = (quadrature(rule, 50, emulate=True) for rule in ("left", "right"))
    for rule, sign in ((left, 1), (right, -1)):
        assert rule.nodes[0] == 0 and rule.nodes[-1] == 1 and rule.embedded is None
        np.testing.assert_allclose(rule.nodes, 0.6 * t + 0.4 * (3 * t**2 - 2 * t**3), atol=1e-15)
        np.testing.assert_allclose(rule.weights[1:-1], shares[1:-1], rtol=1e-14)
        end_weights = shares[[0, -1]] + (-sign * 0.01, sign * 0.01)
        np.testing.assert_allclose(rule.weights[[0, -1]], end_weights, rtol=1e-14)
        assert math.fsum(rule.weights) == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(right.weights, left.weights[::-1], rtol=1e-14)


@pytest.mark.parametrize("rule", SYMMETRIC)
def test_only_the_one_sided_rules_are_emulated(rule):
    with pytest.raises(ValueError, match=f"emulate.*left and right.*{rule}"):
        quadrature(rule, 11, emulate=True)


def test_steps_may_be_any_integer_type():
    assert (
        quadrature("midpoint", np.int64(3)).nodes.tolist()
        == quadrature("midpoint", 3).nodes.tolist()
    )


@pytest.mark.parametrize("steps", [0, -1, -100])
def test_steps_must_be_positive(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; expected a positive integer"):
        quadrature("left", steps)


@pytest.mark.parametrize("steps", [10.0, 2.5, "10", None, True, [10], float("nan")])
def test_steps_must_be_an_integer(steps):
    with pytest.raises(TypeError, match=r"steps is .*expected a positive integer"):
        quadrature("left", steps)


@pytest.mark.parametrize("rule", ["simpson", "", "Left", "gauss_legendre", None, 3])
def test_unknown_rules_are_named(rule):
    with pytest.raises(ValueError, match=r"rule is .*expected one of left, right, midpoint"):
        quadrature(rule, 10)


def test_rules_without_such_a_number_of_nodes():
    with pytest.raises(ValueError, match=r"steps is 1; .*trapezoid.*at least 2"):
        quadrature("trapezoid", 1)
    for steps in (1, 2, 4, 10):
        with pytest.raises(ValueError, match=f"steps is {steps}; .*odd.*at least 3"):
            quadrature("gauss-kronrod", steps)
