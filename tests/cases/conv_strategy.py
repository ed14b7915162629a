"""Hypothesis strategies for geometries of path convolutions."""

from cases.path_operations import conv_case
from hypothesis import assume
from hypothesis import strategies as st

# No kinks: there, rounding can change a gradient completely.
SMOOTH = ("none", "sigmoid", "gelu", "gelu_tanh", "silu")


@st.composite
def conv_cases(draw, activations=SMOOTH, integers=False, for_kernels=False):
    """Cases of one to three dimensions, all layouts, groups, strides, dilations and shuffles.

    With `for_kernels` the C++ kernels serve most of them: two dimensions, some channels.
    """
    rank = 2 if for_kernels else draw(st.sampled_from((1, 2, 2, 2, 3)))
    most = {1: 20, 2: 11, 3: 5}[rank]

    def sides(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    size, kernel, stride, dilation, padding = (
        sides(*bounds) for bounds in ((1, most), (1, 4), (1, 3), (1, 2), (0, 3))
    )
    transposed, groups = draw(st.booleans()), draw(st.sampled_from((1, 1, 1, 2, 3)))
    shuffle = draw(st.sampled_from((1, 1, 2))) if rank == 2 else 1
    least = 5 if for_kernels else 1
    inputs, outputs = (groups * draw(st.integers(least, 9)) for _ in range(2))
    output_padding = tuple(
        draw(st.integers(0, max(s, d) - 1)) if transposed else 0
        for s, d in zip(stride, dilation, strict=True)
    )
    for n, k, s, d, p, e in zip(
        size, kernel, stride, dilation, padding, output_padding, strict=True
    ):
        reach = d * (k - 1)
        bare = (n - 1) * s - 2 * p + reach + 1 + e
        out = bare if transposed else (n + 2 * p - reach - 1) // s + 1
        assume(out > 0)
    return conv_case(
        points=draw(st.integers(1, 3)), images=draw(st.integers(1, 3)),
        samples=draw(st.integers(1, 2)), channels=(inputs, outputs * shuffle**2), size=size,
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, transposed=transposed,
        output_padding=output_padding, groups=groups,
        weight=draw(st.sampled_from(("moves", "moves", "still"))),
        bias=draw(st.sampled_from(("moves", "still", None))),
        activation=draw(st.sampled_from(activations)),
        scale=draw(st.sampled_from((1.0, 0.5))),
        residual=draw(st.sampled_from((None, "points", "shared"))), shuffle=shuffle,
        shared=draw(st.booleans()),
        layout=draw(st.sampled_from(("contiguous", "channels last", "strided"))),
        integers=integers, seed=draw(st.integers(0, 9)),
    )  # fmt: skip
