"""The table of cards: which backend's kernel an operation asks first."""

import pytest
import torch

from faigfast.backend.catalogue import NAMES
from faigfast.backend.gpu import cards
from faigfast.backend.gpu.cards import CARDS, Preference, preference_for
from faigfast.ops import registry
from faigfast.ops.registry import KERNELS, Kernel, Use, choose, using

HOPPER = (9, 0)


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: HOPPER)
    return torch.device("cuda:0")


def test_entries_name_operations_and_backends():
    for (capability, backend), preference in CARDS.items():
        assert capability >= (8, 0) and backend in NAMES and preference.basis
        for operation, other in preference.backends.items():
            assert any(kernel.backend == other for kernel in KERNELS[operation])


def test_16_bits_on_a_card_of_the_table_alone(card, monkeypatch):
    assert preference_for(card, "triton", torch.float16) is CARDS[HOPPER, "triton"]
    assert preference_for(card, "triton", None) is None
    assert preference_for(card, "torch", torch.float16) is None
    assert preference_for(torch.device("cpu"), "triton", torch.float16) is None
    monkeypatch.setattr(cards, "CARDS", {})
    assert preference_for(card, "triton", torch.float16) is None


def served(monkeypatch, refusal):
    kernels = [
        Kernel("own", lambda: 1, lambda: "", "triton"),
        Kernel("other", lambda: 2, lambda: refusal, "cuda"),
        Kernel("plain", lambda: 3, lambda: ""),
    ]
    monkeypatch.setitem(registry.KERNELS, "conv", kernels)
    monkeypatch.setitem(registry.KERNELS, "prelu", kernels)
    use = Use("triton", preference=Preference({"conv": "cuda"}, "a basis"))
    with using(use):
        return choose("conv").name, choose("prelu").name, [*use.refused]


def test_the_preferred_kernel_serves_and_is_noted(monkeypatch):
    conv, prelu, notes = served(monkeypatch, "")
    assert (conv, prelu) == ("other", "own")
    assert notes == [
        "speed: convolutions by the backend cuda, the faster one on this card (a basis)"
    ]


def test_where_it_refuses_the_own_kernel_serves(monkeypatch):
    assert served(monkeypatch, "not here") == ("own", "own", [])
