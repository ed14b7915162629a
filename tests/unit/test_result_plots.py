"""Pictures of an attribution: their data, axes and refusals."""

import subprocess
import sys

import pytest
import torch
from cases.attributions import TWO, made
from cases.networks import images, kinked, pair

from faigfast import FilterIndex, attribute

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
INDEX = FilterIndex(("a.weight", "_b.weight"), ((10, 20, 3, 3), (5, 20, 1, 1)))


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def of_300():
    scores = torch.zeros(1, 300)
    scores[0, [7, 9, 250]] = torch.tensor([3.0, 2.0, 1.0])
    return made({"x": scores, "y": scores.flip(1)}, index=INDEX)


def test_distribution_counts_top_filters_beside_chance():
    ax = of_300().plot()
    assert [[bar.get_height() for bar in bars] for bars in ax.containers] == [[2, 1], [1, 2]]
    assert ax.lines[0].get_ydata().tolist() == [2, 1]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "\u200b_b"]
    one = of_300().plot("distribution", "y", fraction=0.005)
    assert [bar.get_height() for bar in one.containers[0]] == [0, 1]


def test_axes_of_the_caller_are_used():
    figure, axes = pyplot.subplots(1, 2)
    assert of_300().plot("distribution", ax=axes[1]) is axes[1]
    assert not axes[0].containers and len(pyplot.get_fignums()) == 1
    figure.canvas.draw()
    with pytest.raises(TypeError, match="ax is a ndarray; expected matplotlib axes"):
        of_300().plot(ax=axes)


def test_line_draws_the_mean_loss_with_its_ends():
    result = attribute(*pair(kinked), images(2), rule="midpoint", steps=3)
    ax = result.plot("line")
    curve, chord = ax.lines
    assert curve.get_xdata().tolist() == pytest.approx([0, 1 / 6, 1 / 2, 5 / 6, 1])
    means = result.losses[0].mean(0).tolist()
    assert chord.get_ydata().tolist() == means
    middle = float(result.line[0, :, 1, 1].mean())
    assert curve.get_ydata().tolist()[::2] == pytest.approx([means[0], middle, means[1]])
    ax.figure.canvas.draw()


def test_line_joins_images_with_different_nodes():
    result = attribute(*pair(kinked), images(2), rule="trapezoid", tol=1e-3)
    assert len(result.points.unique()) == 2
    curve, _ = result.plot("line").lines
    assert len(curve.get_xdata()) == int(result.points.max())
    assert curve.get_xdata()[0] == 0 and curve.get_xdata()[-1] == 1
    assert (curve.get_ydata() >= 0).all()


def test_line_of_a_result_without_losses():
    with pytest.raises(ValueError, match="holds no losses between the networks"):
        made(TWO).plot("line")
    assert not pyplot.get_fignums(), "a refused plot leaves no figure behind"


@pytest.mark.parametrize("layer", [None, "a", "a.weight", 0, -2])
def test_layer_is_a_map_of_contrasts(layer):
    ax = of_300().plot("layer", "x", layer=layer)
    (image,) = ax.images
    assert image.get_array().shape == (10, 20) and image.get_array()[0, 7] == 3
    assert image.get_clim() == (-3, 3), "the contrast is signed"
    assert ax.get_title() == "a, x"


def test_a_score_without_a_contrast_has_a_scale_from_0():
    (image,) = made({"lq": TWO["blur"]}).plot("layer", layer="b").images
    assert image.get_clim() == (0, 2)


def test_kernels_show_both_networks_and_the_change():
    networks = pair(kinked)
    result = attribute(*networks, images(2), steps=3)
    ax = result.plot("kernels", baseline=networks[0], target=networks[1], n=3)
    mosaic = ax.images[0].get_array()
    assert mosaic.shape == (3 * 4 - 1, 3 * 4 - 1)
    layer, row, column = result.top(None, n=3)[0]
    before, after = (net.state_dict()[layer][row, column] for net in networks)
    most = max(before.abs().max(), after.abs().max())
    torch.testing.assert_close(
        torch.tensor(mosaic[:3, :3].data), (before / most).float(), rtol=1e-5, atol=1e-6
    )
    change = after - before
    expected = (change / change.abs().max()).float()
    torch.testing.assert_close(torch.tensor(mosaic[8:11, :3].data), expected, rtol=1e-4, atol=1e-5)
    assert mosaic.mask[3].all() and mosaic.mask[:, 3].all()


def test_kernels_of_other_networks_are_refused():
    networks = pair(kinked)
    result = attribute(*networks, images(1), steps=2)
    with pytest.raises(TypeError, match="kind 'kernels' needs baseline and target; target is"):
        result.plot("kernels", baseline=networks[0])
    with pytest.raises(ValueError, match="other order"):
        result.plot("kernels", baseline=networks[1], target=networks[0])


@pytest.mark.parametrize(
    "kind, error, words, options",
    [
        ("pie", ValueError, "kind is 'pie'; expected one of distribution, line", {}),
        (None, ValueError, "kind is None", {}),
        (["line"], ValueError, "kind is ", {}),
        ("line", TypeError, "fraction does not belong to kind 'line'", {"fraction": 0.1}),
        ("distribution", TypeError, "layer does not belong.*expected fraction", {"layer": "a"}),
        ("distribution", ValueError, "degradation is 'jpeg'", {"degradation": "jpeg"}),
        ("distribution", ValueError, "fraction is 2", {"fraction": 2}),
        ("layer", ValueError, "degradation is None; expected one of", {}),
        (
            "layer",
            ValueError,
            "layer is 'c'; expected one of 2",
            {"layer": "c", "degradation": "x"},
        ),
        ("layer", ValueError, "layer is 2; expected", {"layer": 2, "degradation": "x"}),
        ("layer", TypeError, "layer is 1.5", {"layer": 1.5, "degradation": "x"}),
        ("layer", TypeError, "layer is True", {"layer": True, "degradation": "x"}),
    ],
)
def test_wrong_arguments(kind, error, words, options):
    with pytest.raises(error, match=words):
        of_300().plot(kind, **options)
    assert not pyplot.get_fignums()


def test_a_layer_that_was_not_scored():
    scored = [*[True] * 200, *[False] * 100]
    result = made({"x": torch.ones(1, 300)}, scored, index=INDEX)
    with pytest.raises(ValueError, match=r"layer '_b\.weight' was not scored"):
        result.plot("layer", layer=1)


def test_without_matplotlib_the_extra_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch, faigfast\n"
        "a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))\n"
        "r = faigfast.attribute(a, b, (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)), steps=1)\n"
        "try: r.plot()\n"
        "except ImportError as problem: print(problem)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "plot needs matplotlib: pip install 'faigfast[report]'"
