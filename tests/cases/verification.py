"""Wrong operations, after which the engine must run point by point."""

import torch
from cases.networks import images, untouched

from faigfast import attribute
from faigfast.engine import op_rules
from faigfast.engine.samples import Samples


def fall_back(nets, words, batch=None):
    """Assert that the engine runs point by point, gives these words as reason, and is right."""
    batch = images(3) if batch is None else batch
    expected = attribute(*nets, batch, backend="reference", steps=3)
    with untouched(*nets, data=batch):
        result = attribute(*nets, batch, backend="torch", steps=3)
    assert torch.equal(result.scores(), expected.scores())
    assert torch.equal(result.completeness, expected.completeness)
    assert [n for n in result.notes if n.startswith("runs point by point: ") and words in n]


def wrong(monkeypatch, op, change):
    """Change the result of an operation's rule."""
    right = op_rules.OPERATION_RULES.get(op)

    def changed(points, **given):
        value = right(points, **given)
        return value if value is None else Samples(change(value.data))

    monkeypatch.setitem(op_rules.OPERATION_RULES, op, changed)
