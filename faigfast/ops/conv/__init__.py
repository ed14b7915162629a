"""Path convolutions: the operation, its C++ kernels, and chains of several."""
