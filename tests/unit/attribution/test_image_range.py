"""Ground truth of 0 to 255 gets a note."""

import pytest
import torch
from cases.networks import pair as networks
from torch import nn

import faigfast
from faigfast.integration.image_range import (
    RANGE_NOTE,
    X_RANGE_NOTE,
    exceeds_white,
    resembles_bytes,
    resembles_bytes_beside,
)


@pytest.fixture
def pair():
    return networks(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)))


def batch(factor):
    gt = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {"lq": {"a": gt * factor, "b": gt}, "gt": gt * factor}


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_bytes_are_noted_once(pair, backend):
    data = [batch(1.0), batch(255.0), batch(255.0)]
    result = faigfast.attribute(*pair, data, steps=2, backend=backend)
    assert list(result.notes).count(RANGE_NOTE) == 1


def test_a_note_stays_with_its_call(pair):
    with faigfast.Attributor(*pair, steps=2) as attributor:
        assert RANGE_NOTE in attributor(batch(255.0)).notes
        assert RANGE_NOTE not in attributor(batch(1.0)).notes


@pytest.mark.parametrize("gt", [torch.rand(1, 3, 6, 6), torch.randn(1, 3, 6, 6) * 9])
def test_other_ranges_are_not_noted(pair, gt):
    gt = gt.double()
    assert RANGE_NOTE not in faigfast.attribute(*pair, (gt, gt), steps=2).notes


def test_what_exceeds_white():
    assert not exceeds_white(torch.tensor([0.0, 1.0, 1 + 0.4 / 255]))
    assert exceeds_white(torch.tensor([1 + 0.6 / 255])) and exceeds_white(torch.tensor([255.0]))
    assert resembles_bytes(torch.tensor([0.0, 7.0]))
    assert not resembles_bytes(torch.tensor([-1.0, 7.0]))


def test_x_of_bytes_beside_gt_of_1_is_noted(pair):
    gt = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    data = [(gt, gt), (gt * 255, gt), (gt * 255, gt)]
    for batches, count in ((data, 1), (data[:1], 0), ((gt * 255, gt * 255), 0)):
        notes = faigfast.attribute(*pair, batches, steps=2).notes
        assert notes.count(X_RANGE_NOTE) == count


def test_noise_that_is_not_clipped_resembles_no_bytes():
    gt = torch.rand(1, 3, 8, 8)
    assert not resembles_bytes_beside(gt + 0.5 * torch.randn(1, 3, 8, 8), gt)
    assert not resembles_bytes_beside(gt * 20 - 1, gt), "negative values"
