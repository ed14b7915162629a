"""Triton kernels of faigfast, installed as `faigfast.kernels`; none are part of this version."""
