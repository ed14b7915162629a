"""Backends: which exist here, and their parts that depend on the machine."""
