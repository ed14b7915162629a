"""Why a network cannot be written as one graph."""


class NotCaptured(Exception):
    """The network cannot be written as one graph; the message says why."""


class NeedsFunctional(Exception):
    """Only a functional trace can show what a network computes.

    It writes on a tensor that others see, reads a number of its tensors, or selects by a mask.
    """
