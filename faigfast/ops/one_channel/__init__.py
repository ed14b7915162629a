"""One channel: what a change of one input channel changes in a convolution."""
