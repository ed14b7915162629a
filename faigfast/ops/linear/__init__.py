"""Path linear layers: the operation, and kernels of convolutions that serve it."""
