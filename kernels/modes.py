"""Modes of the products: the types of the multiplied tiles and of the stored tensors."""

import torch
import triton.language as tl

# Mode → type of the multiplied tiles; sums are in float32 in every mode.
KINDS = {"fp16": tl.float16, "bf16": tl.bfloat16, "tf32": tl.float32, "bf16x3": tl.float32}
STORED = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "bf16x3": torch.float32,
}
