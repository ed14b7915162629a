"""The count of memory before a chunk is chosen: enough, also inside operations, and rarely."""

import pytest
from cases.hard_networks import Body
from cases.networks import images, pair
from torch.nn import functional as F

from faigfast import attribute
from faigfast.engine import chunking, memory
from faigfast.engine.memory import Chunk


class Attends(Body):
    """Masked attention between all pixels. Its weights take more memory than its values."""

    def between(self, y):
        tokens = y.flatten(2).mT[:, None]  # [N, 1, H·W, 4]
        mask = self.head.bias[0].expand(1, 1, y[0, 0].numel(), y[0, 0].numel())
        a = F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask)
        return a[:, 0].mT.reshape(y.shape)


def test_what_an_operation_makes_inside_is_counted(monkeypatch):
    counted = []
    count = memory.footprint

    def watched(plan, leaves, x, chunk):
        counted.append(count(plan, leaves, x, chunk))
        return counted[-1]

    monkeypatch.setattr(memory, "footprint", watched)
    nets, batch = pair(Attends), images(1, size=(24, 24))
    weights = 8 * (24 * 24) ** 2
    with pytest.raises(ValueError, match="needs"):
        attribute(*nets, batch, steps=1, backend="torch", memory=weights)
    assert min(counted) > weights


def test_small_networks_are_not_counted(monkeypatch):
    monkeypatch.setattr(memory, "footprint", None)
    attribute(*pair(Attends), images(1), steps=1, memory=10**9)


@pytest.mark.parametrize(
    "need, expected",
    [
        (
            lambda c: 1000 * c.samples + 1000,
            [(8, 1), (1, 1), (1, 2), (1, 4)],
        ),  # segments do not help
        (lambda c: 1000 * c.samples // c.segments, [(8, 1), (1, 1), (1, 2), (1, 4), (1, 8)]),
        (lambda c: 20 * c.samples + 10, [(8, 1), (4, 1)]),
    ],
)
def test_the_search_is_short(need, expected, monkeypatch):
    counted = []

    def footprint(plan, leaves, x, chunk):
        counted.append(chunk)
        return need(chunk)

    monkeypatch.setattr(memory, "footprint", footprint)
    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), Chunk(4, 2)))
    for _ in range(2):
        try:
            attribute(*pair(Attends), images(2), steps=1, backend="torch", memory=145)
        except ValueError as problem:
            assert "memory is 145 bytes" in str(problem)
        assert [(c.samples, c.segments) for c in counted] == expected
        counted.clear()
