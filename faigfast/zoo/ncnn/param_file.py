"""Text of a `.param` file: layers in order, the blobs between them, and their parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faigfast.io.regular_file import regular_file, shortened, shown

MAGIC = 7767517  # first line of a text file
BINARY_MAGIC = MAGIC.to_bytes(4, "little")  # first bytes of a binary one
EXPECTED = "the text .param file of an ncnn network"
MAX_BYTES = 2**21  # of a file; Real-ESRGAN's has 116,029
MAX_LAYERS = 5_000
MAX_NAME = 255  # bytes of a name, ncnn's own limit
MAX_BLOBS = 2_000_000
MAX_ID = 31  # of a parameter, ncnn's own limit
MAX_SIZE = 4096  # of kernels, strides, paddings: larger ones would take memory at the first image
MAX_NAMED = 8  # layers named in one message
HINTS = (30, 31)  # shapes of outputs and feature masks, without effect on the result
ARRAY = -23300  # older files write an array as parameter ARRAY - id

Value = int | float | tuple[int | float, ...]


@dataclass
class Parameters:
    """Parameters of a layer by number; `read` holds the numbers that the layer's rule asked for.

    Attributes
    ----------
    values : dict of int to int, float or tuple
        As written in the file.
    place : str
        The layer and its line, for messages.
    """

    values: Mapping[int, Value]
    place: str
    read: set[int] = field(default_factory=set)

    def integer(self, number: int, default: int, low: int = 0, high: int = MAX_SIZE) -> int:
        """Give an integer between `low` and `high`."""
        value = self._value(number, default)
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(
                f"{self.place} has the parameter {number}={value}; expected an integer from {low} "
                f"to {high}"
            )
        return value

    def choice(self, number: int, default: int, known: tuple[int, ...]) -> int:
        """Give an integer that is one of `known`."""
        value = self._value(number, default)
        if value not in known:
            raise ValueError(
                f"{self.place} has the parameter {number}={value}; expected one of "
                f"{', '.join(map(str, known))}"
            )
        return int(value)

    def real(self, number: int, default: float) -> float:
        """Give a real number."""
        value = self._value(number, default)
        if isinstance(value, tuple):
            raise ValueError(f"{self.place} has an array as parameter {number}; expected a number")
        return self._real(number, value)

    def reals(self, number: int) -> tuple[float, ...]:
        """Give an array of real numbers, empty where the file has none."""
        return tuple(self._real(number, value) for value in self._array(number))

    def integers(self, number: int, limit: int = 2**31 - 1) -> tuple[int, ...]:
        """Give an array of integers up to `limit` in size, empty where the file has none."""
        values = self._array(number)
        if any(not isinstance(value, int) or abs(value) > limit for value in values):
            raise ValueError(
                f"{self.place} has the parameter {number}={_listed(values)}; expected integers up "
                f"to {limit} in size"
            )
        return tuple(int(value) for value in values)

    def check_all_read(self) -> None:
        """Refuse parameters that no rule of the layer reads, since they may change its result."""
        for number, value in self.values.items():
            if number not in self.read and number not in HINTS and value != 0:
                raise ValueError(
                    f"{self.place} has the parameter {number}={_listed(value)}, which is not "
                    "supported; expected the layer without it"
                )

    def _value(self, number: int, default: Value) -> Value:
        self.read.add(number)
        return self.values.get(number, default)

    def _array(self, number: int) -> tuple[int | float, ...]:
        value = self._value(number, ())
        return value if isinstance(value, tuple) else (value,)

    def _real(self, number: int, value: int | float) -> float:
        # ncnn reads the bits of an integer as those of a float.
        if isinstance(value, int) and value != 0:
            raise ValueError(
                f"{self.place} has the integer {value} in its parameter {number}; expected a real "
                f"number, such as {value}.0"
            )
        return float(value)


@dataclass(frozen=True)
class Layer:
    """One line of a `.param` file.

    Attributes
    ----------
    kind, name : str
        Type and name, such as "Convolution" and "conv1".
    inputs, outputs : tuple of str
        Names of the blobs that it takes and gives.
    values : dict of int to int, float or tuple
        Its parameters.
    place : str
        The layer and its line, for messages.
    texts : dict of int to str
        Parameters that are text: expressions of shapes, such as "0w,0h,-1".
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, Value]
    place: str
    texts: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Content of a `.param` file.

    Attributes
    ----------
    layers : tuple of Layer
        In order of execution: every blob is made before it is used.
    text : bytes
        The file.
    """

    layers: tuple[Layer, ...]
    text: bytes

    def outputs(self) -> list[str]:
        """Give the blobs that no layer takes."""
        taken = {name for layer in self.layers for name in layer.inputs}
        return [name for layer in self.layers for name in layer.outputs if name not in taken]

    def signature(self) -> list[tuple[object, ...]]:
        """Describe name, type, parameters and wiring of every layer, whatever its blobs' names."""
        numbers: dict[str, int] = {}
        rows: list[tuple[object, ...]] = []
        for layer in self.layers:
            hints = layer.values if layer.kind == "Input" else HINTS
            values = {number: v for number, v in layer.values.items() if number not in hints}
            taken = tuple(numbers[name] for name in layer.inputs)
            rows.append((layer.name, layer.kind, values, taken, len(layer.outputs)))
            for name in layer.outputs:
                numbers[name] = len(numbers)
        return rows


def read_graph(path: Path) -> Graph:
    """Read a text `.param` file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file, too long, binary, not ncnn's, or a line is malformed; or a blob
        is used before it is made, or made twice.
    """
    regular_file(path, "file", EXPECTED)
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"{shown(path)} cannot be read: {error.strerror}; expected {EXPECTED}"
        ) from None
    if len(text) > MAX_BYTES:
        raise ValueError(f"{shown(path)} has more than {MAX_BYTES} bytes; expected {EXPECTED}")
    if text.startswith(BINARY_MAGIC):
        raise ValueError(
            f"{shown(path)} is a binary .param.bin file, which lacks the layers' names; expected "
            f"{EXPECTED}"
        )
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{shown(path)} is no text in UTF-8; expected {EXPECTED}") from None
    rows = [(n, words) for n, line in enumerate(lines, 1) if (words := line.split())]
    if not rows or rows[0][1] != [str(MAGIC)]:
        begin = shortened(" ".join(rows[0][1])) if rows else "no line"
        raise ValueError(
            f"{shown(path)} begins with {begin}; expected {MAGIC} in its first line, as in "
            f"{EXPECTED}"
        )
    _check_counts(rows, path)
    layers = tuple(_layer(words, f"line {n} of {shown(path)}") for n, words in rows[2:])
    _check_blobs(layers, int(rows[1][1][1]), path)
    return Graph(layers, text)


def _check_counts(rows: list[tuple[int, list[str]]], path: Path) -> None:
    """Compare the numbers of layers and blobs in the second line with the lines that follow."""
    counts = rows[1][1] if len(rows) > 1 else []
    if len(counts) != 2 or not all(re.fullmatch(r"[0-9]{1,19}", count) for count in counts):
        raise ValueError(
            f"{shown(path)} has {shortened(' '.join(counts))} as its second line; expected the "
            "numbers of layers and blobs"
        )
    layers, blobs = map(int, counts)
    if layers != len(rows) - 2:
        raise ValueError(
            f"{shown(path)} declares {layers} layers and has {len(rows) - 2}; expected a complete "
            "file"
        )
    if not 0 < layers <= MAX_LAYERS or not 0 < blobs <= MAX_BLOBS:
        raise ValueError(
            f"{shown(path)} declares {layers} layers and {blobs} blobs; expected 1 to {MAX_LAYERS} "
            f"layers and 1 to {MAX_BLOBS} blobs"
        )


def _layer(words: list[str], line: str) -> Layer:
    """Read type, name, numbers of inputs and outputs, their names, and parameters."""
    counts = words[2:4]
    if len(counts) < 2 or not all(re.fullmatch(r"[0-9]{1,6}", count) for count in counts):
        raise ValueError(
            f"{line} is {shortened(' '.join(words))}; expected a type, a name, the numbers of "
            "inputs and outputs, their names and parameters"
        )
    kind, name = words[:2]
    middle = 4 + int(counts[0])
    end = middle + int(counts[1])
    for word in (kind, name, *words[4:end]):
        if len(word.encode()) > MAX_NAME or not word.isprintable():
            raise ValueError(
                f"{line} has the name {shortened(word)}; expected at most {MAX_NAME} printable "
                "bytes"
            )
    place = f"layer {name} ({kind}) in {line}"
    blobs = words[4:end]
    stray = next((word for word in blobs if re.fullmatch(r"-?[0-9]+=.*", word)), None)
    if len(words) < end or stray is not None:
        raise ValueError(
            f"{place} declares {counts[0]} inputs and {counts[1]} outputs and names "
            f"{len(blobs) if stray is None else blobs.index(stray)}; expected a name for each"
        )
    values: dict[int, Value] = {}
    texts: dict[int, str] = {}
    for word in words[end:]:
        text = re.fullmatch(r"([0-9]{1,2})=\"([^\"]*)\"", word)
        number, value = (int(text[1]), text[2]) if text else _parameter(word, place)
        if number in values or number in texts:
            raise ValueError(f"{place} has two values for its parameter {number}; expected one")
        if isinstance(value, str):
            texts[number] = value
        else:
            values[number] = value
    inputs, outputs = tuple(words[4:middle]), tuple(words[middle:end])
    return Layer(kind, name, inputs, outputs, values, place, texts)


def _parameter(word: str, place: str) -> tuple[int, Value]:
    """Read `number=value`, `number=value,value` or, in older files, `-233xx=length,value`."""
    key, equals, content = word.partition("=")
    if not equals or not re.fullmatch(r"-?[0-9]{1,6}", key):
        raise ValueError(f"{place} has {shortened(word)}; expected parameters as number=value")
    number = int(key)
    items = content.split(",")
    is_array = len(items) > 1
    if number <= ARRAY:
        number, is_array = ARRAY - number, True
        if items[0] != str(len(items) - 1):
            raise ValueError(
                f"{place} has {shortened(word)}, an array of {len(items) - 1} values; expected "
                "their number before them"
            )
        items = items[1:]
    elif is_array and items[-1] == "":
        items.pop()
    if not 0 <= number <= MAX_ID:
        raise ValueError(f"{place} has the parameter {number}; expected one from 0 to {MAX_ID}")
    values = tuple(_number(item, word, place) for item in items)
    return number, values if is_array else values[0]


def _number(item: str, word: str, place: str) -> int | float:
    if re.fullmatch(r"[+-]?[0-9]{1,30}", item) and -(2**31) <= int(item) < 2**31:
        return int(item)
    real = r"[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?"
    if re.fullmatch(real, item) and not re.fullmatch(r"[+-]?[0-9]+", item):
        return float(item)
    raise ValueError(f"{place} has {shortened(word)}; expected finite numbers, integers of 32 bits")


def _check_blobs(layers: tuple[Layer, ...], declared: int, path: Path) -> None:
    """Refuse blobs that are made twice or used before they are made."""
    makers: dict[str, Layer] = {}
    for layer in layers:
        for name in layer.outputs:
            if name in makers:
                raise ValueError(
                    f"{layer.place} makes the blob {name}, as layer {makers[name].name} does; "
                    "expected one layer for each blob"
                )
            makers[name] = layer
    made: set[str] = set()
    for layer in layers:
        for name in layer.inputs:
            if name not in makers:
                raise ValueError(f"{layer.place} takes the blob {name}, which no layer makes")
            if name not in made:
                raise ValueError(
                    f"{layer.place} takes the blob {name} before layer {makers[name].name} makes "
                    "it; expected layers in the order of execution, without cycles"
                )
        made.update(layer.outputs)
    if len(makers) > declared:
        raise ValueError(
            f"{shown(path)} declares {declared} blobs and has {len(makers)}; expected at least as "
            "many"
        )


def _listed(value: Value) -> str:
    """Write a parameter's value, shortened."""
    items = value if isinstance(value, tuple) else (value,)
    return ",".join(map(str, items[:8])) + (",..." if len(items) > 8 else "")
