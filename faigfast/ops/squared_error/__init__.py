"""Squared errors of images at points of the line: the operation and its C++ kernel."""
