"""Triton kernels of faigfast, installed as `faigfast.kernels`.

Nothing here is imported before a kernel is needed: Triton is no dependency of the package.
"""
