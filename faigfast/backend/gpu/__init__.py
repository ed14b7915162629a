"""Everything that GPUs or several devices alone need; the CPU path is read without it."""
