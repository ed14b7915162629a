"""Functions that the matrix kernels share: products of tiles, activations, offsets of pixels."""

import os

import triton
import triton.language as tl

# Triton's interpreter multiplies the bits of bfloat16 as integers.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def product(a, b, total, MODE: tl.constexpr):
    """Total + a·b, summed in float32.

    MODE: fp16, bf16 (the type of a and b); tf32 of float32; bf16x3: float32 as two bfloat16 each,
    without the product of the two small parts.
    """
    if MODE == "bf16" and INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    elif MODE == "bf16x3":
        a_high = a.to(tl.bfloat16)
        b_high = b.to(tl.bfloat16)
        a_low = (a - a_high.to(tl.float32)).to(tl.bfloat16)
        b_low = (b - b_high.to(tl.float32)).to(tl.bfloat16)
        total = product(a_low, b_high, total, "bf16")
        total = product(a_high, b_low, total, "bf16")
        return product(a_high, b_high, total, "bf16")
    elif MODE == "tf32":
        return tl.dot(a, b, total, input_precision="tf32")
    else:
        return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def on_line(w0, dw, places, mask, alpha):
    """γ(α) = w0 + αΔ in float32 at the offsets `places`; w0 alone without dw."""
    value = tl.load(w0 + places, mask=mask, other=0.0).to(tl.float32)
    if dw is not None:
        value += alpha * tl.load(dw + places, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def activated(z, slope, ACTIVATION: tl.constexpr):
    """relu, or leaky with a slope; z itself for none."""
    if ACTIVATION == "relu":
        return tl.where(z < 0, 0.0, z)  # a NaN stays a NaN
    elif ACTIVATION == "leaky":
        return tl.where(z > 0, z, z * slope)
    else:
        return z


@triton.jit
def gated(g, z, slope, ACTIVATION: tl.constexpr):
    """Gradient at an activation's input; z is its input or output, of the same sign."""
    if ACTIVATION == "relu":
        return tl.where(z.to(tl.float32) > 0, g, 0.0)
    elif ACTIVATION == "leaky":
        return tl.where(z.to(tl.float32) > 0, g.to(tl.float32), g.to(tl.float32) * slope)
    else:
        return g


@triton.jit
def pixel(q, height, width):
    """Image, row and column of pixel q, counted through consecutive images."""
    image = q // (height * width)
    rest = q % (height * width)
    return image, rest // width, rest % width


@triton.jit
def input_line(q, height, out_height, out_width, SH: tl.constexpr):
    """Give an input row, counted through all images, near the inputs of output pixel q."""
    image, line, _ = pixel(q, out_height, out_width)
    return image * height + line * SH


@triton.jit
def places(line, column, width, o, O: tl.constexpr, SHUFFLE: tl.constexpr):
    """Offsets of channels o [K] of pixels [M] in the shuffled images, from row 0: [M, K].

    Rows count through all images, before the shuffle. Channel o = (c·r + i)·r + j of a pixel is
    channel c of pixel (i, j) of its r × r pixels.
    """
    if SHUFFLE == 1:
        return (line * width + column)[:, None] * O + o[None, :]
    else:
        i = (o // SHUFFLE) % SHUFFLE
        j = o % SHUFFLE
        first = line * SHUFFLE
        row = (
            (first[:, None] + i[None, :]) * (width * SHUFFLE)
            + column[:, None] * SHUFFLE
            + j[None, :]
        )
        return row * (O // (SHUFFLE * SHUFFLE)) + (o // (SHUFFLE * SHUFFLE))[None, :]


@triton.jit
def slopes(s0, ds, slope, o, alpha, O: tl.constexpr, SHARED: tl.constexpr, SHUFFLE: tl.constexpr):
    """Give the slope of channels o: a constant, or γ(α) with one value for all or [O/r²]."""
    if s0 is None:
        return slope
    elif SHARED:
        return on_line(s0, ds, 0, True, alpha)
    else:
        return on_line(s0, ds, o // (SHUFFLE * SHUFFLE), o < O, alpha)[None, :]
