"""Malformed and unusual images, in tensors of every kind and batches of every form."""

import collections
import math
import types
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import torch
from call import Call, Mutation, draw_images, split_images
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

WORDS = r"\bx\b|\bgt\b|batch|image|degradation"
IN_WORDS = r"\bx\b|\bgt\b|loss|gradient|batch|image"


class Logged(Tensor):
    """A subclass of Tensor without behaviour of its own."""


class Pixels(collections.UserDict):
    """A mapping that is no dict."""


class Lying:
    """An iterable of batches that gives a wrong length hint."""

    def __init__(self, batches: list[Any], hint: Any) -> None:
        self.batches, self.hint = batches, hint

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __length_hint__(self) -> Any:
        return self.hint


def _fake(value: Tensor) -> Tensor:
    with FakeTensorMode() as mode:
        return mode.from_tensor(value)


def _with_value(number: float) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value.view(-1)[3] = number
        return value

    return change


def _inference(value: Tensor) -> Tensor:
    with torch.inference_mode():
        return value.clone()


def _quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value.float(), 0.01, 0, torch.quint8)


def _jagged(value: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(value), layout=torch.jagged)


# Tensors that hold no images of the network's kind: each is given as x, and as gt.
REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "NaN": _with_value(math.nan),
    "inf": _with_value(math.inf),
    "-inf": _with_value(-math.inf),
    "uint8": lambda value: (255 * value).to(torch.uint8),
    "int64": Tensor.long,
    "bool": Tensor.bool,
    "complex": lambda value: value.to(torch.complex64),
    "half": Tensor.half,
    "bfloat16": Tensor.bfloat16,
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "another float": lambda value: value.to(
        torch.float32 if value.dtype == torch.float64 else torch.float64
    ),
    "one axis less": lambda value: value[0],
    "one axis more": lambda value: value[None],
    "vector": lambda value: value.flatten(),
    "scalar": Tensor.sum,
    "no images": lambda value: value[:0],
    "no channels": lambda value: value[:, :0],
    "no pixels": lambda value: value[..., :0],
    "a channel less": lambda value: value[:, :1],
    "a channel more": lambda value: torch.cat([value, value[:, :1]], 1),
    "nested": lambda value: torch.nested.nested_tensor(list(value)),
    "jagged": _jagged,
    "fake": _fake,
    "meta": lambda value: value.to("meta"),
    "sparse COO": Tensor.to_sparse,
    "sparse CSR": lambda value: value[0, 0].to_sparse_csr(),
    "sparse batch of CSR": lambda value: value.to_sparse_csr(),
    "quantised": _quantised,
    "mkldnn": lambda value: value.float().to_mkldnn(),
    "array": lambda value: value.numpy(),
    "list": lambda value: value.tolist(),
    "None": lambda value: None,
    "number": lambda value: 0.5,
    "string": lambda value: "photograph.png",
    "path": lambda value: b"photograph.png",
    "array of objects": lambda value: np.array([None] * 2),
}
ONLY_GT: dict[str, Callable[[Tensor], Any]] = {
    "that would broadcast": lambda value: value[:, :, :1, :1],
    "transposed": lambda value: value.transpose(2, 3),
    "one image of two": lambda value: value[:1],
    "of three images": lambda value: torch.cat([value, value[:1]]),
    "without pixels": lambda value: value.flatten(1),
}

# Tensors with the same values in another form.
EQUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda value: value.to(memory_format=torch.channels_last),
    "strided": lambda value: value.repeat_interleave(2, -1)[..., ::2],
    "transposed twice": lambda value: value.transpose(2, 3).contiguous().transpose(2, 3),
    "offset in storage": lambda value: torch.cat([value[:1], value])[1:],
    "leaf with gradients": lambda value: value.clone().requires_grad_(),
    "result with gradients": lambda value: value.clone().requires_grad_() * 1,
    "parameter": lambda value: torch.nn.Parameter(value.clone()),
    "subclass": lambda value: value.as_subclass(Logged),
    "of inference mode": _inference,
    "negated lazily": lambda value: torch._neg_view(-value),
    "of shared memory": lambda value: value.clone().share_memory_(),
    "from NumPy": lambda value: torch.from_numpy(value.numpy().copy()),
}
# Other values that are unusual.
UNUSUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda value: value[:1].expand_as(value),
    "constant": torch.zeros_like,
    "denormal": lambda value: value * torch.finfo(value.dtype).tiny * 0.01,
    "of one pixel": lambda value: value[..., :1, :1],
    "of one row": lambda value: value[..., :1, :],
    "large": lambda value: value * 100,
    "near overflow": lambda value: value.clamp(0.1) * torch.finfo(value.dtype).max ** 0.6,
    "of one image": lambda value: value[:1],
    "the ground truth of one channel's images": lambda value: value[:, :1].expand_as(value),
}


def _replaced(position: int, name: str, make: Callable[[Tensor], Any]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        parts: list[Any] = list(call.images)
        parts[position] = make(parts[position].clone())
        call.give(*parts)

    label = "gt" if position else "x"
    # Networks may take other numbers of channels or axes: then the loss does not fit.
    return Mutation(f"{label}: {name}", change, IN_WORDS, refused=True, alone=True)


def _equal(name: str, make: Callable[[Tensor], Tensor]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.give(*(make(part.clone()) for part in call.images))

    return Mutation(f"images: {name}", change, WORDS)


def _unusual(name: str, make: Callable[[Tensor], Tensor]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.mean(*(make(part.clone()) for part in call.images))

    return Mutation(f"images: {name}", change, IN_WORDS)


def _one_memory(call: Call, random: Random) -> None:
    x = call.images[0]
    call.mean(x, x)
    call.give(x, x)


# Forms of a batch, from x and gt; those that are refused have no meaning.
BAD_FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "None": lambda x, gt: None,
    "number": lambda x, gt: 3,
    "string": lambda x, gt: "images",
    "bytes": lambda x, gt: b"xy",
    "tensor": lambda x, gt: x,
    "object": lambda x, gt: object(),
    "function": lambda x, gt: lambda: (x, gt),
    "empty tuple": lambda x, gt: (),
    "empty mapping": lambda x, gt: {},
    "empty generator": lambda x, gt: iter([]),
    "one tensor": lambda x, gt: (x,),
    "three tensors": lambda x, gt: (x, gt, gt),
    "set": lambda x, gt: {x, gt},
    "generator of tensors": lambda x, gt: iter([x, gt, x]),
    "generator of None": lambda x, gt: iter([None]),
    "generator of strings": lambda x, gt: iter(["ab"]),
    "batches in batches": lambda x, gt: [[(x, gt)]],
    "no lq": lambda x, gt: {"gt": gt},
    "no gt": lambda x, gt: {"lq": x},
    "no degradation": lambda x, gt: {"lq": {}, "gt": gt},
    "degradation named 1": lambda x, gt: {"lq": {1: x}, "gt": gt},
    "degradation named None": lambda x, gt: {"lq": {None: x}, "gt": gt},
    "mapping in a mapping": lambda x, gt: {"lq": {"a": {"b": x}}, "gt": gt},
    "gt of another name": lambda x, gt: {"lq": {"a": x}, "gt": {"b": gt}},
    "numbers that differ": lambda x, gt: {"lq": {"a": x, "b": x[:1]}, "gt": gt},
    "degradations that change": lambda x, gt: [{"lq": {n: x}, "gt": gt} for n in "ab"],
    "an array beside a tensor": lambda x, gt: (x, gt.numpy()),
    "lq of NumPy": lambda x, gt: {"lq": x.numpy(), "gt": gt},
    "a negative length hint": lambda x, gt: Lying([], -1),
    "a length hint of text": lambda x, gt: Lying([], "many"),
    "error late": lambda x, gt: iter([(x, gt), (x * math.nan, gt)]),
}
FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "list": lambda x, gt: [x, gt],
    "named tuple": lambda x, gt: collections.namedtuple("Pair", "x gt")(x, gt),
    "mapping": lambda x, gt: {"lq": x, "gt": gt},
    "ordered mapping": lambda x, gt: collections.OrderedDict(gt=gt, lq=x),
    "user's mapping": lambda x, gt: Pixels(lq=x, gt=gt),
    "read-only mapping": lambda x, gt: types.MappingProxyType({"lq": x, "gt": gt}),
    "default mapping": lambda x, gt: collections.defaultdict(int, lq=x, gt=gt),
    "more keys": lambda x, gt: {"lq": x, "gt": gt, "name": "a", "sha256": 3},
    "gt by name with more names": lambda x, gt: {"lq": {"lq": x}, "gt": {"lq": gt, "b": 3}},
    "generator": lambda x, gt: ((x[i : i + 1], gt[i : i + 1]) for i in range(len(x))),
    "list of batches": lambda x, gt: [(x[i : i + 1], gt[i : i + 1]) for i in range(len(x))],
    "data loader": lambda x, gt: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, gt), batch_size=1
    ),
    "deque": lambda x, gt: collections.deque([(x, gt)]),
    "map": lambda x, gt: map(tuple, [[x, gt]]),
    "a huge length hint": lambda x, gt: Lying([(x, gt)], 2**62),
    "a length hint of 0": lambda x, gt: Lying([(x, gt)], 0),
    "a length hint that is too long": lambda x, gt: Lying([(x, gt)], 10**30),
}
NAMES = ["", " ", "../../x", "a\nb", "a\0b", "\u202eabc", "=1+1", "'\"<b>$_%", "ä" * 300, "lq"]


def _form(name: str, make: Callable[[Tensor, Tensor], Any], refused: bool) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.batch = make(*(part.clone() for part in call.images))

    return Mutation(f"batch: {name}", change, WORDS, refused)


def _named(name: str) -> Mutation:
    def change(call: Call, random: Random) -> None:
        x, gt = call.images
        call.batch, call.meant = {"lq": {name: x}, "gt": gt}, {name: split_images(x, gt)}

    return Mutation(f"degradation named {name[:12]!r}", change, WORDS)


def _two_degradations(call: Call, random: Random) -> None:
    (x, gt), other = call.images, draw_images(random, call.dtype, tuple(call.images[0].shape))[0]
    call.batch = {"lq": {"blur": x, "noise": other}, "gt": gt}
    call.meant = {"blur": split_images(x, gt), "noise": split_images(other, gt)}


def _one_buffer(call: Call, random: Random) -> None:
    """Give every image in one pair of tensors, overwritten from batch to batch."""

    def given() -> Iterator[tuple[Tensor, Tensor]]:
        buffers = x[:1].clone(), gt[:1].clone()
        for number in range(len(x)):
            for buffer, values in zip(buffers, (x, gt), strict=True):
                buffer.copy_(values[number : number + 1])
            yield buffers

    x, gt = (part.clone() for part in call.images)
    call.batch = given()


def _raising(call: Call, random: Random) -> None:
    def given() -> Iterator[tuple[Tensor, Tensor]]:
        yield call.images
        raise KeyError("photograph 7")

    call.batch = given()


def _endless_nesting(call: Call, random: Random) -> None:
    nested: list[Any] = []
    nested.append(nested)
    call.batch = nested


def _modes_inside(call: Call, random: Random) -> None:
    """Suspend the generator inside a mode of torch."""

    def given() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(len(x)):
            with torch.no_grad():
                yield x[number : number + 1], gt[number : number + 1]

    x, gt = call.images
    call.batch = given()


def _mixed_sizes(call: Call, random: Random) -> None:
    (x, gt), images = call.images, split_images(*call.images)
    larger = draw_images(random, call.dtype, (1, x.shape[1], *(n + 2 for n in x.shape[2:])))
    call.batch = [(x, gt), larger, (x, gt)]
    call.meant = {"lq": [*images, larger, *images]}


MUTATIONS = [
    *(_replaced(n, name, make) for n in (0, 1) for name, make in REFUSED.items()),
    *(_replaced(1, name, make) for name, make in ONLY_GT.items()),
    *(_equal(name, make) for name, make in EQUAL.items()),
    *(_unusual(name, make) for name, make in UNUSUAL.items()),
    *(_form(name, make, True) for name, make in BAD_FORMS.items()),
    *(_form(name, make, False) for name, make in FORMS.items()),
    *map(_named, NAMES),
    Mutation("images: x and gt in one memory", _one_memory, IN_WORDS),
    Mutation("batch: two degradations", _two_degradations, WORDS),
    Mutation("batch: one buffer for all", _one_buffer, WORDS),
    Mutation("batch: generator that raises", _raising, WORDS, True, own=(KeyError,)),
    Mutation("batch: list in itself", _endless_nesting, WORDS, True),
    Mutation("batch: images of two sizes", _mixed_sizes, IN_WORDS),
    Mutation("batch: generator with modes of its own", _modes_inside, WORDS),
]
