"""Attention of windows: the operation and its C++ kernel."""
