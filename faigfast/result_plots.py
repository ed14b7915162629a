"""Pictures of an attribution, drawn on matplotlib axes with the user's own style."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from faigfast.filters.kernel_values import top_kernels
from faigfast.filters.layer_counts import layer_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from faigfast.result import Attribution

PlotKind = Literal["distribution", "line", "layer", "kernels"]
FRACTION, KERNELS = 0.01, 8
MOST_LABELS = 40  # names of layers below an axis
Draw = Callable[..., None]


def plot(
    result: "Attribution",
    kind: PlotKind,
    degradation: str | None,
    ax: "Axes | None",
    options: dict[str, Any],
) -> "Axes":
    """Draw a picture; arguments and errors are those of `Attribution.plot`."""
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(_KINDS)}")
    draw, names, size = _KINDS[kind]
    given = {name: value for name, value in options.items() if value is not None}
    if foreign := sorted(given.keys() - set(names)):
        own = f"expected {', '.join(names)} beside degradation and ax"
        raise TypeError(f"{foreign[0]} does not belong to kind {kind!r}; {own}")
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'faigfast[report]'") from None
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; expected matplotlib axes")
    if degradation is not None or kind in ("layer", "kernels"):
        result.mean(degradation)  # refuses an unknown name, and None among several
    if ax is None:
        figure, ax = pyplot.subplots(figsize=size, layout="constrained")
        try:
            draw(result, degradation, ax, **given)
        except Exception:
            pyplot.close(figure)
            raise
        return ax
    draw(result, degradation, ax, **given)
    return ax


def _distribution(
    result: "Attribution",
    degradation: str | None,
    ax: "Axes",
    fraction: float = FRACTION,
    against: str | Sequence[str] | None = None,
) -> None:
    """Draw the number of top filters in each layer, beside the number by chance."""
    names = result.degradations if degradation is None else (degradation,)
    layers = [layer.removesuffix(".weight") for layer in result.index.layers]
    width = 0.8 / len(names)
    count = 0
    for n, name in enumerate(names):
        top = result.top(name, fraction, against)
        counts, count = layer_counts(top.indices, result.index), len(top)
        places = [x + (n - (len(names) - 1) / 2) * width for x in range(len(layers))]
        ax.bar(places, [counts.get(layer, 0) for layer in layers], width, label=_label(name))
    sizes = torch.tensor(result.index.offsets).diff().tolist()
    scored = torch.stack([part.sum() for part in result.scored.split(sizes)]).double()  # [layers]
    chance = (scored * count / scored.sum()).tolist()
    ax.plot(range(len(layers)), chance, "k_", markersize=5, label="by chance")
    step = -(-len(layers) // MOST_LABELS)
    shown = list(map(_label, layers[::step]))
    ax.set_xticks(range(0, len(layers), step), shown, rotation=90, fontsize="x-small")
    ax.set(xlabel="layer, in order of depth", ylabel=f"filters among the best {count}")
    ax.legend()


def _line(result: "Attribution", degradation: str | None, ax: "Axes") -> None:
    """Draw the mean loss along the line, and the chord between its ends."""
    if not result.line.shape[2]:
        raise ValueError(
            "the result holds no losses between the networks, as results of older versions and of "
            f"the method {result.setting.method!r} may not; expected one of faigfast.attribute"
        )
    for n, name in enumerate(result.degradations):
        if degradation not in (None, name):
            continue
        alpha, loss = _mean_line(result.line[n], result.losses[n])
        (curve,) = ax.plot(alpha, loss, marker="o", markersize=3, label=_label(name))
        ends = [float(x) for x in result.losses[n].mean(0)]
        ax.plot([0, 1], ends, linestyle=":", color=curve.get_color())
    ax.set(xlabel="α: 0 baseline, 1 target", ylabel=f"mean loss, {result.setting.objective}")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.legend(title="dotted: straight between the ends")


def _mean_line(line: Tensor, losses: Tensor) -> tuple[list[float], list[float]]:
    """Average the losses [N, P, 2] over images whose nodes may differ; ends [N, 2] included."""
    import numpy

    nodes = line[..., 0]
    grid = torch.cat([nodes[nodes.isfinite()].flatten(), torch.tensor([0.0, 1.0]).to(nodes)])
    grid = grid.unique()  # ascending
    curves = []
    for points, ends in zip(line, losses, strict=True):
        points = points[points[:, 0].isfinite()]
        inner = points[(points[:, 0] > 0) & (points[:, 0] < 1)]
        alpha = [0.0, *inner[:, 0].tolist(), 1.0]
        values = [float(ends[0]), *inner[:, 1].tolist(), float(ends[1])]
        curves.append(numpy.interp(grid.tolist(), alpha, values))
    return grid.tolist(), numpy.mean(curves, axis=0).tolist()


def _layer(
    result: "Attribution",
    degradation: str | None,
    ax: "Axes",
    layer: str | int | None = None,
    against: str | Sequence[str] | None = None,
) -> None:
    """Draw the contrast of every filter of one layer as a heat map, [out, in]."""
    number = _layer_number(result, degradation, layer, against)
    low, high = result.index.offsets[number : number + 2]
    name, shape = result.index.layers[number], result.index.shapes[number]
    if not result.scored[low]:
        raise ValueError(f"layer {name!r} was not scored; expected one that parameters= selects")
    values = result.contrast(degradation, against)[low:high].view(shape[:2])
    most = float(values.abs().max()) or 1.0
    signed = bool((values < 0).any())
    image = ax.imshow(
        values.numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if signed else "viridis",
        vmin=-most if signed else 0,
        vmax=most,
    )
    ax.figure.colorbar(image, ax=ax, label="contrast" if signed else "score")
    title = f"{_label(name.removesuffix('.weight'))}, {degradation or result.degradations[0]}"
    ax.set(title=title, xlabel="in", ylabel="out")
    ax.locator_params(integer=True)


def _layer_number(
    result: "Attribution",
    degradation: str | None,
    layer: str | int | None,
    against: str | Sequence[str] | None,
) -> int:
    """Find a layer by name or number; None: the layer of the best filter."""
    layers = result.index.layers
    if layer is None:
        return layers.index(result.ranking(degradation, against)[0][0])
    if isinstance(layer, str):
        for name in (layer, f"{layer}.weight"):
            if name in layers:
                return layers.index(name)
    elif isinstance(layer, int) and not isinstance(layer, bool):
        if -len(layers) <= layer < len(layers):
            return range(len(layers))[layer]
    else:
        raise TypeError(f"layer is {layer!r}; expected a name or a number")
    raise ValueError(
        f"layer is {layer!r}; expected one of {len(layers)} layers such as {layers[0]!r}, or a "
        "number below it"
    )


def _kernels(
    result: "Attribution",
    degradation: str | None,
    ax: "Axes",
    baseline: nn.Module | None = None,
    target: nn.Module | None = None,
    n: int = KERNELS,
    against: str | Sequence[str] | None = None,
) -> None:
    """Draw the best kernels before, after, and their change, a column each."""
    if baseline is None or target is None:
        missing = "baseline" if baseline is None else "target"
        raise TypeError(f"kind 'kernels' needs baseline and target; {missing} is missing")
    best = result.top(degradation, n=n, against=against)
    best.check_pair(baseline, target)
    kernels = top_kernels(baseline, target, best, n)
    height, width = (max(kernel.shape[d] for _, kernel, _ in kernels) for d in (0, 1))
    mosaic = torch.full((3 * (height + 1) - 1, len(kernels) * (width + 1) - 1), torch.nan)
    for column, (_, before, after) in enumerate(kernels):
        most = max(float(before.abs().max()), float(after.abs().max())) or 1.0
        change = after - before
        rows = (before / most, after / most, change / (float(change.abs().max()) or 1.0))
        for row, kernel in enumerate(rows):
            top = row * (height + 1) + (height - kernel.shape[0]) // 2
            left = column * (width + 1) + (width - kernel.shape[1]) // 2
            mosaic[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    ax.imshow(mosaic.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    middles = [c * (width + 1) + (width - 1) / 2 for c in range(len(kernels))]
    names = [_label(name).replace(" ", "\n") for name, _, _ in kernels]
    ax.set_xticks(middles, names, rotation=90, fontsize="x-small")
    titles = ["baseline", "target", "change,\nown scale"]
    ax.set_yticks([r * (height + 1) + (height - 1) / 2 for r in range(3)], titles)
    ax.tick_params(length=0)
    ax.set_title(f"the {len(kernels)} best filters for {degradation or result.degradations[0]}")


def _label(name: str) -> str:
    """Keep matplotlib from reading mathematics, or from hiding names that begin with "_"."""
    name = name.replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


# Kind → function, its options, and width and height of a new figure in inches.
_KINDS: dict[str, tuple[Draw, tuple[str, ...], tuple[float, float]]] = {
    "distribution": (_distribution, ("fraction", "against"), (8.0, 4.0)),
    "line": (_line, (), (5.0, 3.6)),
    "layer": (_layer, ("layer", "against"), (5.0, 4.2)),
    "kernels": (_kernels, ("baseline", "target", "n", "against"), (8.0, 3.6)),
}
