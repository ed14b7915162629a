"""How far a precision may lie from the literal loop in float64 on the trained pairs."""

# Median and worst relative L1 of an image's scores, and the least overlap of the top 1 %. bf16 is
# for those who name it: `auto` takes it only where it keeps 0.99 too, which has a test of its own.
BOUNDS = {
    "fp32": (1e-4, 2e-3, 0.995),
    "bf16x3": (1e-3, 1e-2, 0.99),
    "tf32": (1e-2, 5e-2, 0.99),
    "fp16": (1e-2, 5e-2, 0.99),
    "bf16": (5e-2, 0.2, 0.97),
}
