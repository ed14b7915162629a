"""SPAN's convolutions as they are trained: four branches, which merge into one 3×3 kernel."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

WEIGHTS = ("sk.weight", "conv.0.weight", "conv.1.weight", "conv.2.weight")
PARTS = tuple(name.replace("weight", kind) for name in WEIGHTS for kind in ("weight", "bias"))
MERGED = ("eval_conv.weight", "eval_conv.bias")


def merge(
    parts: Mapping[str, Tensor], name: str = "the branches", dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Merge conv.2(conv.1(conv.0(x))) + sk(x) into one convolution with zero padding.

    Parameters
    ----------
    parts : mapping of str to Tensor
        `sk.weight` [O, C, 1, 1], `conv.0.weight` [gC, C, 1, 1], `conv.1.weight` [hO, gC, 3, 3] and
        `conv.2.weight` [O, hO, 1, 1], and a bias of each.
    name : str
        Name of the branches in the message.
    dtype : torch.dtype, optional
        Of the result; by default of `sk.weight`. Sums are in double precision.

    Returns
    -------
    weight, bias : Tensor
        [O, C, 3, 3] and [O].

    Raises
    ------
    ValueError
        If a part is missing or the shapes do not go together.
    """
    if missing := [part for part in PARTS if part not in parts]:
        raise ValueError(f"SPAN lacks {missing[0]!r} of {name}")
    skip, narrow, middle, wide = (parts[part] for part in WEIGHTS)
    shapes = [tuple(weight.shape) for weight in (skip, narrow, middle, wide)]
    if not _go_together(*shapes):
        raise ValueError(
            f"SPAN needs {name} of [O, C, 1, 1], [g, C, 1, 1], [h, g, 3, 3] and [O, h, 1, 1], "
            f"found {', '.join(str(list(shape)) for shape in shapes)}"
        )
    for part in WEIGHTS:
        bias = parts[part.replace("weight", "bias")]
        if bias.shape != parts[part].shape[:1]:
            raise ValueError(f"SPAN needs a bias of {part} of {name}, found {list(bias.shape)}")
    exact = {part: value.double() for part, value in parts.items()}
    first, last = exact["conv.0.weight"][..., 0, 0], exact["conv.2.weight"][..., 0, 0]
    middle = exact["conv.1.weight"]
    kernel = torch.einsum("oh,hgyx,gc->ocyx", last, middle, first)
    kernel[..., 1, 1] += exact["sk.weight"][..., 0, 0]
    # The image is padded before the first branch, whose bias therefore reaches every tap.
    bias = middle.sum((2, 3)) @ exact["conv.0.bias"] + exact["conv.1.bias"]
    bias = last @ bias + exact["conv.2.bias"] + exact["sk.bias"]
    return kernel.to(dtype or skip.dtype), bias.to(dtype or skip.dtype)


def branches(weight: Tensor, bias: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give branches that merge into a kernel exactly, of the shapes of others.

    The first and the third branch copy their input's channels, the second has the kernel, and the
    skip is 0.

    Parameters
    ----------
    weight, bias : Tensor
        The kernel [O, C, 3, 3] and its bias [O].
    like : mapping of str to Tensor
        Parts whose shapes the result has.

    Returns
    -------
    dict of str to Tensor
        The eight parts of `merge`.
    """
    parts = {name: weight.new_zeros(like[name].shape) for name in PARTS}
    outputs, inputs = weight.shape[:2]
    parts["conv.0.weight"][:inputs, :, 0, 0] = torch.eye(inputs)
    parts["conv.1.weight"][:outputs, :inputs] = weight
    parts["conv.1.bias"][:outputs] = bias
    parts["conv.2.weight"][:, :outputs, 0, 0] = torch.eye(outputs)
    return parts


class SpanBranches:
    """State dicts of SPAN as it is trained."""

    name = "SPAN's branches"

    def holds(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has branches."""
        return "conv_1.sk.weight" in state and "block_1.c1_r.sk.weight" in state

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge the branches of every convolution; the stored merged kernels are not used."""
        own: dict[str, Tensor] = {}
        for key, value in state.items():
            match = re.fullmatch(r"(.+)\.(?:sk|conv|eval_conv)\.(?:\d\.)?(?:weight|bias)", key)
            if match is None:
                own[key] = value
            elif f"{match[1]}.{MERGED[0]}" not in own:
                pair = merge(_parts(state, match[1]), f"{match[1]!r}")
                own |= {f"{match[1]}.{end}": v for end, v in zip(MERGED, pair, strict=True)}
        return own

    def write(
        self, own: Mapping[str, Tensor], like: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], str]:
        """Keep the branches that merge into the network's kernels, and replace all others."""
        written = {key: own.get(key, value) for key, value in like.items()}
        names = [key.removesuffix(".sk.weight") for key in like if key.endswith(".sk.weight")]
        replaced = []
        for name in names:
            parts = _parts(like, name)
            kernel = own[f"{name}.{MERGED[0]}"], own[f"{name}.{MERGED[1]}"]
            if not all(map(torch.equal, merge(parts, name, kernel[0].dtype), kernel)):
                replaced.append(name)
                parts = branches(*kernel, parts)
                written |= {f"{name}.{part}": value for part, value in parts.items()}
        if not replaced:
            return written, ""
        return written, (
            f"{len(replaced)} of {len(names)} convolutions have other kernels than the branches of "
            "`like`: their branches are replaced by new ones, which merge into these kernels "
            "exactly but are no place to go on training from"
        )


def _parts(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {part: state[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in state}


def _go_together(
    skip: tuple[int, ...], narrow: tuple[int, ...], middle: tuple[int, ...], wide: tuple[int, ...]
) -> bool:
    """Whether four shapes are of branches that can copy every channel."""
    if {len(shape) for shape in (skip, narrow, middle, wide)} != {4}:
        return False
    outputs, inputs = skip[:2]
    inner, outer = narrow[0], wide[1]
    wanted = (
        (outputs, inputs, 1, 1),
        (inner, inputs, 1, 1),
        (outer, inner, 3, 3),
        (outputs, outer, 1, 1),
    )
    return (skip, narrow, middle, wide) == wanted and inner >= inputs and outer >= outputs
