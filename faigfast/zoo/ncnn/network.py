"""A network that a pair of ncnn files describes, as a module."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from torch import Tensor, nn

from faigfast.io.atomic import atomic_write
from faigfast.io.regular_file import shortened, shown
from faigfast.zoo.ncnn import activations, combinations, convolutions, spatial  # noqa: F401
from faigfast.zoo.ncnn.bin_file import Stored, WeightReader, write_weights
from faigfast.zoo.ncnn.param_file import MAX_NAMED, Graph, Layer, Parameters, read_graph
from faigfast.zoo.ncnn.steps import BUILDERS, Blueprint, Extent, Run, Step

MAX_SCALE = 64  # of a blob; blobs of published networks reach 16 times the image
MAX_CHANNELS = 2**20
QUANTIZED = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
INT8_SCALES = 8  # the parameter that quantizes such a layer

Call = tuple[Run, str | None, tuple[str, ...], tuple[str, ...], list[str]]


class NcnnNetwork(nn.Module):
    """The layers of a `.param` file, run in the file's order.

    Layers with weights are submodules under their names ("." becomes "_"), convolutions as
    `nn.Conv2d` and `nn.ConvTranspose2d`.

    Attributes
    ----------
    scale : int or None
        Size of the output divided by the input's, apart from the margins that convolutions without
        padding cut off; None if the layers do not determine it or it is no whole number.
    channels, out_channels : int or None
        Channels of the image and of the output; None if the layers do not determine them.
    graph : Graph
        The `.param` file.
    arrays : tuple of Stored
        The arrays of the `.bin` file in order.
    """

    def __init__(self, graph: Graph, steps: Sequence[tuple[Layer, Step]]) -> None:
        super().__init__()
        self.scale: int | None = None
        self.channels: int | None = None
        self.out_channels: int | None = None
        self.graph = graph
        last_users = {name: layer for layer, _ in steps for name in layer.inputs}
        self._program: list[Call] = []
        self.arrays: tuple[Stored, ...] = ()
        for layer, step in steps:
            name = None
            if step.make_module is not None:
                name = self._free_name(layer.name)
                self.add_module(name, step.make_module())
                self.arrays += tuple(
                    Stored(f"{name}.{stored.key}", stored.flag, stored.in_file)
                    for stored in step.arrays
                )
            done = [blob for blob in dict.fromkeys(layer.inputs) if last_users[blob] is layer]
            self._program.append((step.run, name, layer.inputs, layer.outputs, done))
        self._input = next(layer.outputs[0] for layer in graph.layers if layer.kind == "Input")
        self._output = graph.outputs()[0]

    def forward(self, x: Tensor) -> Tensor:
        """Give the output of images [N, C, H, W]."""
        blobs = {self._input: x}
        for run, name, inputs, outputs, done in self._program:
            module = () if name is None else (self._modules[name],)
            result = run(*module, *(blobs[blob] for blob in inputs))
            for blob in done:
                del blobs[blob]
            results = result if isinstance(result, tuple) else (result,)
            blobs.update(zip(outputs, results, strict=True))
        return blobs[self._output]

    def _free_name(self, name: str) -> str:
        """Give a name for a submodule that is no attribute yet."""
        name = name.replace(".", "_")
        while hasattr(self, name):
            name += "_"
        return name


def read_network(path: Path) -> NcnnNetwork:
    """Read the network of a `.param` file and the `.bin` file beside it.

    Parameters
    ----------
    path : Path
        The text `.param` file; the weights are in the file of this name with `.bin` at its end.

    Returns
    -------
    NcnnNetwork
        In eval mode, in float32, whatever the storage.

    Raises
    ------
    FileNotFoundError
        If one of the two files does not exist.
    ValueError
        If a file is malformed, truncated or too long, the network has more than one input or
        output, or layers or parameters that are not supported; up to eight such layers are named.
    """
    graph = read_graph(path)
    _check_layers(graph, path)
    steps: list[tuple[Layer, Step]] = []
    extents: dict[str, Extent] = {}
    in_channels = None
    with WeightReader(path.with_suffix(".bin"), path) as weights:
        for layer in graph.layers:
            parameters = Parameters(layer.values, layer.place)
            if layer.kind == "Input":
                in_channels = parameters.integer(2, 0, high=2**31 - 1) or None
                extents[layer.outputs[0]] = Extent(in_channels, Fraction(1), is_input=True)
                continue
            given = tuple(extents[name] for name in layer.inputs)
            step = BUILDERS[layer.kind](Blueprint(layer, parameters, weights, given))
            parameters.check_all_read()
            _check_growth(layer, step)
            extents.update(zip(layer.outputs, step.outputs, strict=True))
            steps.append((layer, step))
            if in_channels is None and given and given[0].is_input:
                in_channels = step.in_channels
        weights.check_at_end()
    network = NcnnNetwork(graph, steps)
    output = extents[graph.outputs()[0]]
    network.channels, network.out_channels = in_channels, output.channels
    if output.scale is not None and output.scale.denominator == 1:
        network.scale = int(output.scale)
    return network.eval()


def write_network(path: Path, state: Mapping[str, Tensor], like: NcnnNetwork) -> None:
    """Write both files of a network: first the weights, then the layers of another file.

    Parameters
    ----------
    path : Path
        The `.param` file; the weights go into the file of this name with `.bin` at its end.
    state : mapping of str to Tensor
        Tensors under the keys of `like`. They are written in its storage; the logger "faigfast"
        warns if float16 rounds them.
    like : NcnnNetwork
        The network whose `.param` file is copied.

    Raises
    ------
    ValueError
        If a value is too large for float16, or a file cannot be written.
    """
    arrays = [(stored, state[stored.key]) for stored in like.arrays]
    # A file is moved into its place where its block ends: the weights come first.
    with atomic_write(path) as temporary:
        temporary.write_bytes(like.graph.text)
        write_weights(path.with_suffix(".bin"), arrays)


def check_same_graph(first: NcnnNetwork, second: NcnnNetwork, where: str, elsewhere: str) -> None:
    """Refuse two networks whose layers differ in name, type, parameters or inputs.

    Raises
    ------
    ValueError
        Naming the first layer that differs.
    """
    rows, other_rows = first.graph.signature(), second.graph.signature()
    if len(rows) != len(other_rows):
        raise ValueError(
            f"the networks differ: {where} has {len(rows)} layers and {elsewhere} "
            f"{len(other_rows)}; expected two networks of one architecture"
        )
    for layer, row, other in zip(first.graph.layers, rows, other_rows, strict=True):
        what = ("name", "type", "parameters", "inputs", "number of outputs")
        for noun, value, other_value in zip(what, row, other, strict=True):
            if value != other_value:
                raise ValueError(
                    f"the networks differ: {layer.place} has other {noun} in {elsewhere}; expected "
                    "two networks of one architecture"
                )


def _check_layers(graph: Graph, path: Path) -> None:
    """Refuse layers that cannot be built, all in one message; and several inputs or outputs."""
    layers = [layer for layer in graph.layers if layer.kind != "Input"]
    problems = [
        (
            "layers of types that are not supported",
            [_called(layer) for layer in layers if layer.kind not in BUILDERS],
            ", ".join(sorted(BUILDERS)),
        ),
        (
            "layers with expressions as parameters",
            [
                f"{_called(layer)} {number}={shortened(text)}"
                for layer in layers
                for number, text in layer.texts.items()
            ],
            "numbers, as in a file that is exported for images of one size",
        ),
        (
            f"layers that compute in int8 (parameter {INT8_SCALES})",
            [
                _called(layer)
                for layer in layers
                if layer.kind in QUANTIZED and layer.values.get(INT8_SCALES)
            ],
            "the network before quantization",
        ),
    ]
    reasons = [f"{what}: {_some(names)}" for what, names, _ in problems if names]
    if reasons:
        expected = "; ".join(remedy for _, names, remedy in problems if names)
        raise ValueError(f"{shown(path)} has {'; '.join(reasons)}; expected {expected}")
    inputs = [layer for layer in graph.layers if layer.kind == "Input"]
    for layer in inputs:
        if layer.inputs or len(layer.outputs) != 1:
            raise ValueError(
                f"{layer.place} has {len(layer.inputs)} inputs and {len(layer.outputs)} outputs; "
                "expected none and one"
            )
    for what, names in (
        ("inputs", [layer.outputs[0] for layer in inputs]),
        ("outputs", graph.outputs()),
    ):
        if len(names) != 1:
            listed = ", ".join(shortened(name) for name in names[:MAX_NAMED]) or "none"
            raise ValueError(
                f"{shown(path)} has {len(names)} {what} ({listed}); expected one image"
            )


def _called(layer: Layer) -> str:
    return f"{shortened(layer.name)} ({shortened(layer.kind)})"


def _some(names: list[str]) -> str:
    """List the first names and count the rest."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _check_growth(layer: Layer, step: Step) -> None:
    """Refuse blobs so large that the first image would take all memory."""
    for extent in step.outputs:
        if (extent.scale or 0) > MAX_SCALE or (extent.channels or 0) > MAX_CHANNELS:
            raise ValueError(
                f"{layer.place} makes {extent.channels or 'unknown'} channels of "
                f"{extent.scale or 'unknown'} times the image's size; expected at most "
                f"{MAX_CHANNELS} channels and {MAX_SCALE} times"
            )
