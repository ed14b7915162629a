"""Matching: shuffled channels come back to their places, and the barrier with them."""

import sys
from pathlib import Path

import pytest
import torch

import faigfast
from faigfast.zoo.pairs import shipped_pair
from faigfast.zoo.srcnn import SRCNNStyle

sys.path.append(str(Path(__file__).parents[3]))

from scripts.alignment.activations import match_activations
from scripts.alignment.groups import permutation_groups
from scripts.alignment.matching import agreement, assigned, match_weights
from scripts.alignment.measure import Images, line_barriers, measured
from scripts.alignment.origin import returns


@pytest.fixture(scope="module")
def networks():
    return shipped_pair("srcnn-24x4-x2")


@pytest.fixture(scope="module")
def x():
    return torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def groups(networks, x):
    return permutation_groups(*networks, x)


@pytest.fixture(scope="module")
def shuffled(networks, groups):
    generator = torch.Generator().manual_seed(0)
    orders = {group.atom: torch.randperm(group.size, generator=generator) for group in groups}
    return groups.permuted(networks[0], orders), orders


def detached(network):
    return {key: value.detach() for key, value in network.named_parameters()}


def undone(orders):
    return {atom: value.argsort() for atom, value in orders.items()}


def test_the_best_assignment_is_chosen():
    similarity = torch.tensor([[3.0, 4.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 1.0]])
    assert assigned(similarity).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("similarity", "words"),
    [(torch.ones(2, 3), "expected a square matrix"), (torch.full((2, 2), torch.nan), "not finite")],
)
def test_wrong_similarities_are_refused(similarity, words):
    with pytest.raises(ValueError, match=words):
        assigned(similarity)


def test_weights_bring_shuffled_channels_back(networks, groups, shuffled):
    network, orders = shuffled
    result = match_weights(groups, detached(networks[1]), detached(network))
    wanted = undone(orders)
    assert all(torch.equal(value, wanted[atom]) for atom, value in result.items())


def test_activations_bring_shuffled_channels_back(networks, groups, shuffled, x):
    network, orders = shuffled
    result = match_activations(groups, detached(networks[0]), detached(network), [x])
    wanted = undone(orders)
    assert all(torch.equal(value, wanted[atom]) for atom, value in result.items())


def test_matching_never_lowers_the_agreement(groups, networks):
    generator = torch.Generator().manual_seed(1)
    baseline = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in detached(networks[0]).items()
    }
    target = detached(networks[1])
    result = match_weights(groups, target, baseline)
    assert agreement(groups, target, baseline, result) > agreement(groups, target, baseline, {})


def test_tensors_of_other_networks_are_refused(groups, networks):
    own = detached(networks[0])
    with pytest.raises(ValueError, match="target and baseline differ in"):
        match_weights(groups, own, {"other": torch.ones(1)})


def test_no_images_are_refused(groups, networks):
    own = detached(networks[0])
    with pytest.raises(ValueError, match="images is empty"):
        match_activations(groups, own, own, [])


@pytest.fixture(scope="module")
def images(x):
    generator = torch.Generator().manual_seed(2)
    lq = {name: torch.rand(2, 3, 8, 8, generator=generator) for name in ("one", "two")}
    return Images(lq, torch.rand(2, 3, 16, 16, generator=generator), 0, [x])


def test_barriers_are_those_of_an_attribution(networks, images):
    barriers, _ = line_barriers(*networks, images)
    batch = {"lq": dict(images.lq), "gt": images.gt}
    result = faigfast.attribute(*networks, batch, steps=15)
    expected = dict(zip(result.degradations, result.barrier, strict=True))
    for name, values in barriers.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-3, atol=1e-6)


def test_matching_takes_back_what_shuffling_did(networks, groups, shuffled, images):
    network, _ = shuffled
    orders = match_weights(groups, detached(networks[1]), detached(network))
    expected, _ = line_barriers(*networks, images)
    broken, _ = line_barriers(network, networks[1], images)
    matched, _ = line_barriers(groups.permuted(network, orders), networks[1], images)
    for name, values in expected.items():
        assert broken[name].min() > values.max() + 1
        torch.testing.assert_close(matched[name], values, rtol=1e-3, atol=1e-6)


def test_every_candidate_computes_the_same(images):
    def network(seed):
        torch.manual_seed(seed)
        return SRCNNStyle((4, 6), scale=2)

    results = list(measured(network(0), network(1), images, shuffled=True))
    assert [result.matching for result in results] == [
        "none", "weights", "activations", "activations, then weights", "norms",
        "weights and norms", "activations and norms",
    ]  # fmt: skip
    assert all(result.change < 1e-5 for result in results)
    assert results[0].distance > results[1].distance


def test_channels_of_trainings_of_one_network_return_to_their_places(networks, groups):
    results = list(returns(groups, *networks, seeds=range(2)))
    assert [result.own_place for result in results] == [1, 1]
    assert all(result.start < 0.2 and result.given > 0.9 for result in results)
    assert all(abs(result.matched - result.given) < 1e-9 for result in results)


def test_networks_without_groups_have_no_origin():
    networks = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)
    groups = permutation_groups(*networks, torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="groups is empty"):
        list(returns(groups, *networks))
