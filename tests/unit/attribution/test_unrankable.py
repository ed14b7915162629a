"""Networks whose filters cannot be ranked: named in notes, or refused."""

import copy

import pytest
import torch
from cases.networks import images, pair, refused, untouched
from cases.unrankable_networks import (
    Chosen,
    CopiedUnderData,
    Detached,
    Floored,
    Holder,
    RepVGGLike,
    Rounded,
    RoundedOutput,
    SPANLike,
    TwoLayers,
    UnderNoGrad,
    merge_branches,
    merge_in_place,
)
from torch import nn

from faigfast import Attribution, Attributor, attribute
from faigfast.analysis.baselines import rank_by
from faigfast.integration.cautions import without_cautions

BACKENDS = ["reference", "torch", "cpu"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def pair_of(make):
    return pair(make, torch.float32)


def batch_of(**options):
    return images(dtype=torch.float32, **options)


def noted(result, start):
    return [note for note in result.notes if note.startswith(f"{start}: ")]


@backends
@pytest.mark.parametrize("make", [SPANLike, RepVGGLike, CopiedUnderData])
def test_a_kernel_that_forward_merges_is_named(make, backend):
    nets = pair_of(make)
    with untouched(*nets):
        result = attribute(*nets, batch_of(), backend=backend, steps=3)
    (forward,) = noted(result, "forward")
    assert "'merged.weight'," in forward and "fuse=" in forward and "tail" not in forward
    assert result.zero_gradient == ("wide.weight", "narrow.weight")
    (gradient,) = noted(result, "gradient")
    assert "'wide.weight', 'narrow.weight'," in gradient and "fuse=" in gradient


@pytest.mark.parametrize("make", [SPANLike, RepVGGLike, CopiedUnderData])
def test_a_kernel_that_was_merged_before_is_named_too(make):
    nets = pair_of(make)
    for net in nets:
        net(batch_of()[0])
    assert noted(attribute(*nets, batch_of(), steps=2), "forward")


@backends
@pytest.mark.parametrize("fuse", [merge_branches, merge_in_place])
def test_fuse_merges_the_branches_of_copies_first(fuse, backend):
    nets, batch = pair_of(SPANLike), batch_of()
    own = [merge_branches(copy.deepcopy(net)) for net in nets]
    expected = attribute(*own, batch, backend=backend, steps=3)
    with untouched(*nets):
        result = attribute(*nets, batch, backend=backend, steps=3, fuse=fuse)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-4, atol=1e-6)
    assert not without_cautions(result.notes) and not result.zero_gradient
    assert len(result.index.layers) == 2


def test_a_fused_result_swaps_filters_of_the_fused_networks():
    nets, batch = pair_of(RepVGGLike), batch_of()
    top = attribute(*nets, batch, steps=3, fuse=merge_branches).top(None, 0.25)
    own = [merge_branches(copy.deepcopy(net)) for net in nets]
    masked = top.swap(*own)
    assert not torch.equal(masked(batch[0]), own[1](batch[0]))


def test_an_attributor_fuses_again_after_a_change_of_the_weights():
    nets, batch = pair_of(RepVGGLike), batch_of()
    with Attributor(*nets, steps=3, fuse=merge_branches) as attributor:
        before = attributor(batch)
        with torch.no_grad():
            nets[1].narrow.weight.mul_(2)
        after = attributor(batch)
    expected = attribute(*nets, batch, steps=3, fuse=merge_branches)
    assert not torch.allclose(before.scores(), after.scores())
    torch.testing.assert_close(after.scores(), expected.scores())


@pytest.mark.parametrize("method", ["faig", "input", "change", "gradient"])
def test_rivals_fuse_too(method):
    nets, batch = pair_of(SPANLike), batch_of()
    own = [merge_branches(copy.deepcopy(net)) for net in nets]
    result = rank_by(method, *nets, batch, steps=3, fuse=merge_branches)
    expected = rank_by(method, *own, batch, steps=3)
    torch.testing.assert_close(result.mean(), expected.mean(), rtol=1e-4, atol=1e-6)


@backends
@pytest.mark.parametrize("make", [UnderNoGrad, Detached, Rounded, Floored, Chosen])
def test_a_layer_without_a_gradient_is_named(make, backend):
    result = attribute(*pair_of(make), batch_of(), backend=backend, steps=3)
    assert result.zero_gradient == ("head.weight",)
    (note,) = noted(result, "gradient")
    assert "'head.weight'," in note and "parameters=" in note
    assert not noted(result, "scores") and not noted(result, "forward")


@backends
@pytest.mark.parametrize("tol", [None, 0.05])
def test_scores_of_zero_are_noted_and_not_ranked(tol, backend):
    result = attribute(*pair_of(RoundedOutput), batch_of(), backend=backend, tol=tol, steps=27)
    assert noted(result, "scores") == [
        "scores: exactly 0 for all filters under 'lq', which cannot be ranked"
    ]
    assert not any("nan" in note for note in result.notes)
    if tol is not None:
        assert bool(result.reached.all()) and result.evaluations < 27
    for rank in (lambda: result.ranking(None), lambda: result.top(None, 0.5)):
        with pytest.raises(ValueError, match=r"scores of 'lq' are exactly 0 .* fuse="):
            rank()


@pytest.mark.parametrize("method", ["input", "gradient", "signed", "faig"])
def test_rivals_of_zero_are_not_ranked(method):
    result = rank_by(method, *pair_of(RoundedOutput), batch_of(), steps=3)
    with pytest.raises(ValueError, match="exactly 0"):
        result.top(None, 0.5)


def test_rivals_of_weights_that_do_not_differ_are_not_ranked():
    nets = pair_of(TwoLayers)
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        nets[1].tail.bias.add_(0.1)
    for method in ("change", "relative", "faig"):
        with pytest.raises(ValueError, match="exactly 0"):
            rank_by(method, *nets, batch_of(), steps=3).ranking(None)


@backends
def test_a_layer_that_does_not_differ_is_not_named(backend):
    nets = pair_of(TwoLayers)
    nets[1].head.load_state_dict(nets[0].head.state_dict())
    result = attribute(*nets, batch_of(), backend=backend, steps=3)
    assert not result.zero_gradient and not noted(result, "gradient")
    assert not result.mean()[:12].any()


@backends
def test_a_dead_filter_is_not_named_though_it_alone_differs(backend):
    nets = pair_of(TwoLayers)
    nets[1].head.load_state_dict(nets[0].head.state_dict())
    with torch.no_grad():
        for net in nets:
            net.head.bias[0] = -100
        nets[1].head.weight[0] += 0.1
    result = attribute(*nets, batch_of(), backend=backend, steps=3)
    assert not result.mean()[:12].any() and result.mean().any()
    assert not result.zero_gradient


@backends
def test_a_layer_that_one_image_reaches_is_not_named(backend):
    x, gt = batch_of(n=3)
    x[0] = x[2] = 0
    result = attribute(*pair_of(TwoLayers), (x, gt), backend=backend, steps=3)
    assert not result.zero_gradient
    black = attribute(*pair_of(TwoLayers), (x[::2], gt[::2]), backend=backend, steps=3)
    assert black.zero_gradient == ("head.weight",)
    assert not black.merge(result).zero_gradient
    assert not noted(black.merge(result), "gradient")


@backends
def test_a_network_without_any_gradient_is_refused(backend):
    class Hidden(TwoLayers):
        def forward(self, x):
            return super().forward(x).detach()

    words = r"the loss does not depend .* neither detached nor under no_grad"
    refused(ValueError, words, *pair_of(Hidden), batch=batch_of(), backend=backend)


def test_only_scored_layers_are_named():
    for make, layers in ((SPANLike, ["tail.*"]), (Detached, ["tail.*"])):
        result = attribute(*pair_of(make), batch_of(), steps=3, parameters=layers)
        assert not result.zero_gradient and not noted(result, "forward")


def test_the_copy_of_a_network_that_is_not_used_is_named(tmp_path):
    result = attribute(*pair_of(Holder), batch_of(), steps=3)
    (note,) = noted(result, "gradient")
    assert "part 'online' has the layers of part 'averaged' and looks like a copy" in note
    result.save(tmp_path / "scores.safetensors")
    kept = Attribution.load(tmp_path / "scores.safetensors")
    assert kept.zero_gradient == result.zero_gradient and kept.notes == result.notes


def test_a_holder_against_one_of_its_parts_names_the_parts():
    holder, network = pair_of(Holder)[0], pair_of(TwoLayers)[1]
    parts = r"part 'online' and 'averaged' of the {}: pass that module"
    refused(ValueError, parts.format("baseline"), holder, network, batch=batch_of())
    refused(ValueError, parts.format("target"), network, holder, batch=batch_of())


@pytest.mark.parametrize(
    ("fuse", "kind", "words"),
    [
        ("merge", TypeError, "fuse is a str; expected a function"),
        (lambda net: net.weight, ValueError, "fuse of model_a: 'SPANLike' object has no"),
        (lambda net: 3, TypeError, "fuse gives a int for model_a; expected a torch.nn.Module"),
        (lambda net: nn.ReLU(), ValueError, "model_b has no parameters"),
    ],
)
def test_a_fuse_that_does_not_fit_is_refused(fuse, kind, words):
    refused(kind, words, *pair_of(SPANLike), batch=batch_of(), fuse=fuse)
