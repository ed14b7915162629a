"""Convolutions in C++ that are prepared together and run one after the other."""

import signal
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.conv import cpu_queue
from faigfast.ops.conv.cpu_queue import Queue
from faigfast.ops.conv.spec import ConvSpec, PathParameters

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
ALPHA = torch.tensor([0.25, 0.75])


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """Shapes for which memory was taken, full of NaN."""
    shapes, empty = [], cpu_queue.empty
    monkeypatch.setattr(
        cpu_queue, "empty", lambda *shape: shapes.append(shape) or empty(*shape).fill_(torch.nan)
    )
    return shapes


def weights(layers, channels=8):
    """Of layers that leave the size as it is."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, channels, 3, 3, generator=generator) / channels
        for _ in range(layers)
    ]


def pixels(*size, channels=8):
    return torch.rand(2, 1, *size, channels, generator=torch.Generator().manual_seed(1))


def queued(queue, x, w):
    parameters = PathParameters(w[0], w[1] - w[0], None, None, None, None, ALPHA)
    return queue.convolve(x, parameters, None, ConvSpec(activation="relu"))


def plain(x, w):
    return torch.stack([
        F.conv2d(one.movedim(-1, 1), torch.lerp(*w, a), padding=1).relu().movedim(1, -1)
        for one, a in zip(x, ALPHA, strict=True)
    ])  # fmt: skip


def test_each_reads_what_was_given_before_it():
    queue, values = Queue(), [pixels(9, 6)]
    for w in weights(3):
        values.append(queued(queue, values[-1], w))
    assert values[1].isnan().all() and values[3].isnan().all()
    queue.run()
    for (x, y), w in zip(pairwise(values), weights(3), strict=True):
        torch.testing.assert_close(y, plain(x, w), rtol=1e-5, atol=1e-6)


def test_memory_that_is_free_is_taken_again(made):
    queue, x = Queue(), pixels(9, 6)
    y, expected = x, x
    for w in weights(6):
        before, y = y, queued(queue, y, w)
        expected = plain(expected, w)
        if before is not x:
            queue.free(before)
    assert made.count((2, 1, 9, 6, 8)) == 2
    queue.run()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


def test_it_is_run_before_much_memory_of_other_shapes_lies_free():
    queue, values = Queue(), [pixels(9, 6, channels=8)]
    for channels in range(7, 1, -1):
        w = torch.rand(2, channels, channels + 1, 3, 3)
        values.append(queued(queue, values[-1], w))
        if channels < 7:
            queue.free(values[-2])
    assert values[1].isfinite().all() and values[-1].isnan().all()


def test_nothing_is_run_twice():
    queue, (w,) = Queue(), weights(1)
    y = queued(queue, pixels(4, 4), w)
    queue.run()
    y.fill_(0)
    queue.run()
    assert not y.any()


class Interrupted(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers")
def test_a_signal_interrupts_it():
    def interrupt(*_):
        raise Interrupted

    queue, x, (w,) = Queue(), pixels(96, 96, channels=64), weights(1, channels=64)
    for _ in range(1000):
        queue.free(queued(queue, x, w))
    last = queued(queue, pixels(96, 97, channels=64), w)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            queue.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert last.isnan().all()
