import copy
import json
import math
from functools import partial

import pytest
import torch
from cases.networks import images, kinked, pair, smooth, untouched
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import faigfast
from faigfast.analysis.baselines import METHODS, WEIGHT_METHODS, rank_by


@pytest.fixture(scope="module")
def nets():
    return pair(kinked)


def batch(seed=0):
    x, gt = images(2, seed=seed)
    return {"lq": {"a": x, "b": images(2, seed=seed + 7)[0]}, "gt": gt}


def kernels(value):
    return value.abs().flatten(2).sum(2).flatten()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_one_kind_of_result(nets, method, tmp_path):
    given = batch()
    with untouched(*nets, data=[given["gt"]]):
        result = rank_by(method, *nets, given, steps=3)
    assert result.setting.method == method and result.degradations == ("a", "b")
    assert len(result.top("a", 0.5)) == len(result.index) // 2
    result.save(tmp_path / "scores.safetensors")
    again = faigfast.Attribution.load(tmp_path / "scores.safetensors")
    assert again.setting == result.setting
    assert torch.equal(again.top("a", 0.2).indices, result.top("a", 0.2).indices)
    repr(result)


def test_faig_is_attribute(nets):
    given = batch()
    one, other = rank_by("faig", *nets, given, steps=4), faigfast.attribute(*nets, given, steps=4)
    assert torch.equal(one.scores("b"), other.scores("b")) and one.setting == other.setting


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("options", [{"steps": 40}, {"tol": 1e-4}, {"rule": "gauss-kronrod"}])
def test_signed_scores_add_up_to_the_loss_they_take_away(backend, options):
    nets = pair(smooth)
    for net in nets:  # biases are not filters
        for layer in (net[0], net[2]):
            nn.init.zeros_(layer.bias)
    x, gt = images(3)
    result = rank_by("signed", *nets, (x, gt), backend=backend, **{"steps": None, **options})
    change = result.losses[0, :, 0] - result.losses[0, :, 1]
    torch.testing.assert_close(result.scores().sum(1), change, rtol=2e-3, atol=1e-6)
    absolute = rank_by("faig", *nets, (x, gt), backend=backend, **{"steps": None, **options})
    assert (result.scores().abs() <= absolute.scores() * (1 + 1e-6) + 1e-9).all()
    assert (result.scores() < 0).any() or (absolute.scores() > result.scores() + 1e-9).any()


def test_signed_and_absolute_results_do_not_mix(nets):
    one, other = (rank_by(method, *nets, batch(), steps=2) for method in ("faig", "signed"))
    with pytest.raises(ValueError, match="method is 'faig' and 'signed'"):
        one.merge(other)


def test_the_gradient_is_that_at_the_target(nets):
    baseline, target = nets
    given = batch()
    result = rank_by("gradient", *nets, given)
    net = copy.deepcopy(target)
    for n in range(2):
        net.zero_grad()
        x, gt = given["lq"]["b"][n : n + 1], given["gt"][n : n + 1]
        (net(x) - gt).square().sum().backward()
        expected = torch.cat(
            [kernels(net[i].weight.grad * (net[i].weight - baseline[i].weight)) for i in (0, 2)]
        )
        torch.testing.assert_close(result.scores("b")[n], expected)


class Choosing(nn.Sequential):
    """Branches on values, so that no graph can hold it and it runs point by point."""

    def forward(self, x):
        return super().forward(x) if x.abs().max() > 1e-3 else x


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_input_gradients_are_the_published_loop(nets, backend, looks):
    if looks:
        nets = [Choosing(*net) for net in nets]
    _, target = nets
    given, clean = batch(), images(2, seed=3)[0]
    with untouched(*nets, data=[given["gt"], clean]):
        result = rank_by("input", *nets, given, steps=11, clean=clean, backend=backend)
    assert result.backend == ("cpu" if backend == "auto" else backend)
    for name in ("a", "b"):
        for n in range(2):
            total = [0, 0]
            for step in range(11):
                net = copy.deepcopy(target)
                x = clean[n] + step / 11 * (given["lq"][name][n] - clean[n])
                net(x[None]).sum().backward()
                total = [t + net[i].weight.grad for t, i in zip(total, (0, 2), strict=True)]
            expected = torch.cat([kernels(t) / 11 for t in total])
            torch.testing.assert_close(result.scores(name)[n], expected)
    assert torch.equal(result.contrast("a"), result.mean("a"))  # the authors' ranking
    against = result.mean("a") - result.mean("b")
    assert torch.equal(result.contrast("a", "b"), against)


def test_input_paths_begin_at_the_shrunk_ground_truth():
    nets = pair(lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)))
    x, gt = images(2, size=(4, 5))[0], images(2, size=(8, 10))[1]
    clean = gt.unflatten(2, (4, 2)).unflatten(4, (5, 2)).mean((3, 5))
    one, other = (rank_by("input", *nets, (x, gt), clean=c) for c in (None, clean))
    torch.testing.assert_close(one.scores(), other.scores())


def test_scores_of_weights(nets):
    baseline, target = nets
    change, size, relative = (
        rank_by(method, *nets, batch()).mean("b") for method in ("change", "magnitude", "relative")
    )
    weight_pairs = [(baseline[i].weight, target[i].weight) for i in (0, 2)]
    torch.testing.assert_close(change, torch.cat([kernels(b - a) for a, b in weight_pairs]))
    torch.testing.assert_close(size, torch.cat([kernels(b) for _, b in weight_pairs]))
    expected = torch.cat([kernels(b - a) / kernels(a) for a, b in weight_pairs])
    torch.testing.assert_close(relative, expected)


def test_a_filter_that_was_zero_does_not_break_the_relative_change():
    baseline, target = pair(kinked)
    with torch.no_grad():
        baseline[0].weight[0, :2] = 0
        target[0].weight[0, 0] = 0
    result = rank_by("relative", baseline, target, batch())
    assert result.mean("a").isfinite().all()
    assert result.ranking("a").indices[0] == 1 and result.ranking("a").indices[-1] == 0


def test_random_is_seeded_and_spreads(nets):
    one, again, other = (rank_by("random", *nets, batch(), seed=s) for s in (5, 5, 6))
    assert torch.equal(one.mean("a"), again.mean("a"))
    assert not torch.equal(one.ranking("a").indices, other.ranking("a").indices)


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_weights_rank_alike_for_every_degradation(nets, method):
    result = rank_by(method, *nets, batch())
    assert torch.equal(result.ranking("a").indices, result.ranking("b").indices)
    assert math.isnan(float(result.completeness.max()))
    assert not torch.equal(result.ranking("a").indices, torch.arange(len(result.index)))


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("lime", {}, "method is 'lime'; expected one of faig, input"),
        ("input", {"steps": 0}, "steps is 0"),
        ("input", {"clean": torch.zeros(2, 3, 4, 4)}, "clean is \\[2, 3, 4, 4\\]"),
        ("gradient", {"backend": "abacus"}, "backend is 'abacus'"),
    ],
)
def test_refused(nets, method, options, words):
    with pytest.raises(ValueError, match=words):
        rank_by(method, *nets, batch(), **options)


OTHERS = [method for method in METHODS if method not in ("faig", "signed")]


@pytest.mark.parametrize("method", METHODS)
def test_options_of_nobody_are_refused(nets, method):
    for name in ("nonsense", "signed"):
        with pytest.raises(TypeError, match=f"options hold '{name}'; expected some of rule"):
            rank_by(method, *nets, batch(), **{name: True})


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "abacus"}, "backend is 'abacus'"),
        ({"rule": "bogus"}, "rule is 'bogus'"),
        ({"precision": "fp99"}, "precision is 'fp99'"),
        ({"objective": "bogus"}, "objective is 'bogus'"),
        ({"parameters": ["nowhere*"]}, "parameters holds 'nowhere\\*'"),
    ],
)
def test_bad_options_are_refused_also_where_they_do_not_act(nets, method, options, words):
    with pytest.raises(ValueError, match=words):
        rank_by(method, *nets, batch(), **options)


@pytest.mark.parametrize("method", OTHERS)
def test_what_does_not_act_is_told(nets, method):
    rank = partial(rank_by, method, *nets, batch(), steps=2)
    plain = rank()
    assert plain.notes == rank(backend="auto", precision="fp64").notes
    given = rank(rule="gauss-legendre", objective="absolute_error")
    of_rule = f"rule 'gauss-legendre' does not act on {method!r}"
    assert any(note.startswith(of_rule) for note in given.notes)
    told = any(note.startswith("objective 'absolute_error' does not") for note in given.notes)
    assert told == (method != "gradient")
    assert torch.equal(given.mean("a"), plain.mean("a")) == told


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_honoured_by_every_method(nets, method, tmp_path):
    every, chosen = (
        rank_by(method, *nets, batch(), steps=3, parameters=p) for p in (None, ["2.*"])
    )
    first = nets[1][0].weight[:, :, 0, 0].numel()
    assert chosen.scored.tolist() == [n >= first for n in range(len(every.index))]
    assert not chosen.mean("a")[:first].any()
    assert torch.equal(chosen.mean("a")[first:], every.mean("a")[first:])
    assert set(chosen.ranking("a").indices.tolist()) == set(range(first, len(every.index)))
    chosen.save(tmp_path / "scores.safetensors")
    assert torch.equal(
        faigfast.Attribution.load(tmp_path / "scores.safetensors").scored, chosen.scored
    )


def test_the_seed_has_a_place_of_its_own(nets, tmp_path):
    one, other = (rank_by("random", *nets, batch(), seed=s) for s in (5, 6))
    assert (one.setting.seed, one.setting.steps) == (5, 0)
    assert rank_by("change", *nets, batch(), seed=5).setting.seed is None
    with pytest.raises(ValueError, match="seed is 5 and 6"):
        one.merge(other)
    one.save(tmp_path / "new.safetensors")
    assert faigfast.Attribution.load(tmp_path / "new.safetensors").setting == one.setting
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        metadata = file.metadata()
    settings = json.loads(metadata["setting"])
    del settings["seed"], metadata["sha256"]  # files of older versions have neither
    save_file(
        load_file(tmp_path / "new.safetensors"),
        tmp_path / "old.safetensors",
        {**metadata, "setting": json.dumps(settings)},
    )
    old = faigfast.Attribution.load(tmp_path / "old.safetensors")
    assert torch.equal(old.mean("a"), one.mean("a")) and old.setting.seed is None


def test_networks_of_two_kinds_are_refused(nets):
    with pytest.raises(ValueError, match="the networks differ"):
        rank_by("change", nn.Sequential(nn.Conv2d(3, 3, 3)), nets[1], batch())
    with pytest.raises(ValueError, match="single batch"):
        rank_by("input", *nets, [batch()], clean=torch.zeros(2, 3, 6, 5))
