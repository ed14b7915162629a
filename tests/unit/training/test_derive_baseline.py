import copy
import math

import pytest
import torch
from cases.training import equal, network
from torch import nn

import faigfast
from faigfast.data import Degradation, write_image
from faigfast.training import Derivation, derivation_run, derive_baseline

SHORT = {"iterations": 6, "patch": 4, "batch": 2, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def frequent(monkeypatch):
    """Measure and save every second iteration."""
    monkeypatch.setattr("faigfast.training.derivation_run.MEASURE_EVERY", 2)


def photographs(count=4, size=24):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator)


def derived(target=None, images=None, **options):
    target = network() if target is None else target
    images = photographs() if images is None else images
    return derive_baseline(target, images, **(SHORT | options))


def test_gives_a_changed_copy_in_eval_mode_and_leaves_the_target():
    target = network().train()
    before = copy.deepcopy(target.state_dict())
    baseline = derived(target)
    assert equal(target.state_dict(), before) and target.training
    assert type(baseline) is type(target) and not baseline.training
    assert not equal(baseline.state_dict(), before)
    assert faigfast.derive_baseline is derive_baseline


def test_the_record_holds_what_was_measured():
    target = network()
    record = derived(target, forget=["noise=0.1"], keep="gray-noise=0.2").faigfast_derivation
    assert record.forgotten == ("noise=0.1",) and record.kept == ("gray-noise=0.2",)
    for values in (record.target, record.baseline, record.bicubic, record.barrier):
        assert list(values) == ["clean", "noise=0.1", "gray-noise=0.2"]
        assert all(math.isfinite(value) for value in values.values())
    assert [m.iteration for m in record.measurements] == [2, 4, 6]
    assert record.iterations == 6 and not record.diverged
    assert record.stopped.startswith("stopped at the end of the schedule")
    assert 0 < record.distance < 1
    remaining = record.baseline["noise=0.1"] - record.bicubic["noise=0.1"]
    assert record.remaining == {"noise=0.1": remaining}
    assert Derivation.from_json(record.to_json()) == record
    assert "to be forgotten" in str(record) and "Relative distance" in str(record)


def test_equal_seeds_give_equal_baselines_whatever_the_generator():
    first = derived().state_dict()
    state = torch.random.get_rng_state()
    with torch.no_grad():
        second = derived().state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert equal(first, second)
    assert not equal(first, derived(seed=1).state_dict())


def test_photographs_of_every_form_are_the_same(tmp_path):
    images = (photographs() * 255).round() / 255
    for n, image in enumerate(images):
        write_image(tmp_path / f"{n}.png", image)
    wanted = derived(images=images).state_dict()
    named = {str(n): image for n, image in enumerate(images)}
    for form in (tmp_path, str(tmp_path), list(images), iter(images), named):
        assert equal(derived(images=form).state_dict(), wanted)


def test_a_photograph_on_its_own_is_divided():
    record = derived(images=photographs(1, 32)).faigfast_derivation
    assert record.settings["held_out"] == ["0 (b)"]


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, monkeypatch, after):
    wanted = derived(forget="noise=0.1")
    original, calls = derivation_run.DerivationRun._step, []

    def stopped(run):
        calls.append(run)
        if len(calls) > after:
            raise KeyboardInterrupt
        original(run)

    monkeypatch.setattr(derivation_run.DerivationRun, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        derived(forget="noise=0.1", output=tmp_path / "run")
    monkeypatch.setattr(derivation_run.DerivationRun, "_step", original)
    resumed = derived(forget="noise=0.1", output=tmp_path / "run")
    assert equal(resumed.state_dict(), wanted.state_dict())
    assert resumed.faigfast_derivation == wanted.faigfast_derivation

    def never(run):
        raise AssertionError("a finished run takes no step")

    monkeypatch.setattr(derivation_run.DerivationRun, "_step", never)
    again = derived(forget="noise=0.1", output=tmp_path / "run")
    assert equal(again.state_dict(), wanted.state_dict())
    assert again.faigfast_derivation == wanted.faigfast_derivation


def test_a_state_of_another_run_is_refused(tmp_path):
    derived(output=tmp_path)
    for change in ({"seed": 1}, {"iterations": 5}, {"keep": "noise=0.2"}, {"target": network(1)}):
        with pytest.raises(ValueError, match="holds the results of another run"):
            derived(output=tmp_path, **change)
    with pytest.raises(ValueError, match="another run"):
        derived(images=photographs(5), output=tmp_path)
    overwritten = derived(seed=1, output=tmp_path, overwrite=True)
    assert equal(overwritten.state_dict(), derived(seed=1).state_dict())


def test_a_damaged_state_starts_again_with_a_warning(tmp_path):
    wanted = derived(output=tmp_path)
    (tmp_path / "state.part").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"state\.part is damaged"):
        again = derived(output=tmp_path)
    assert equal(again.state_dict(), wanted.state_dict())


def _local(image, generator):
    return image


def test_a_recipe_without_identity_cannot_be_resumed(tmp_path):
    derived(keep=_local)
    derived(keep=_local, output=tmp_path / "named")
    with pytest.raises(ValueError, match="which nothing identifies"):
        derived(keep=lambda image, generator: image, output=tmp_path / "lambda")


def test_divergence_keeps_the_best_weights():
    record = derived(learning_rate=3.0, iterations=40).faigfast_derivation
    assert record.diverged and record.stopped.startswith("DIVERGED")
    assert record.iterations < record.measurements[-1].iteration or len(record.measurements) < 20
    best = max(record.measurements, key=lambda m: m.psnr["clean"])
    assert record.iterations == best.iteration
    assert record.baseline["clean"] == pytest.approx(best.psnr["clean"], abs=1e-6)


class NotFinite(nn.Module):
    """Gives infinity with gradients, after some calls in which these are wanted."""

    def __init__(self, after):
        super().__init__()
        self.net, self.left = network(), after

    def forward(self, x):
        y = self.net(x)
        if y.requires_grad:
            self.left -= 1
        return y * math.inf if self.left < 0 else y


def test_a_loss_that_is_not_finite_is_divergence():
    with pytest.raises(FloatingPointError, match=r"diverged before .* expected a lower learning"):
        derived(NotFinite(after=1), scale=2)


def test_stops_when_nothing_changes():
    target = network()
    record = derived(target, learning_rate=1e-12, iterations=100, forget="noise=0.1")
    record = record.faigfast_derivation
    assert record.iterations == 8  # four measurements
    assert "clean PSNR no longer rises" in record.stopped
    assert "noise=0.1" in record.stopped


def test_parameters_that_do_not_learn_and_buffers_stay():
    target = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)
    )
    target[0].requires_grad_(False)
    before = copy.deepcopy(target.state_dict())
    after = derived(target).state_dict()
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_half_precision_learns_in_float32_and_keeps_its_type():
    baseline = derived(network().half())
    assert all(p.dtype == torch.float16 for p in baseline.parameters())
    assert all(p.isfinite().all() for p in baseline.parameters())
    assert not equal(baseline.state_dict(), network().half().state_dict())


def test_networks_that_lose_pixels_take_padding():
    target = nn.Sequential(nn.Conv2d(3, 12, 5), nn.PixelShuffle(2))
    assert derived(target, pad=2, patch=6).faigfast_derivation.settings["scale"] == 2
    with pytest.raises(ValueError, match=r"with pad=0 at scale 2; expected pad=2, or another"):
        derived(target, patch=6, scale=2)


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0])
def test_own_output_lets_the_degradation_through(monkeypatch, gain):
    original, batches = derivation_run.DerivationRun._batch, []

    def recorded(run, seed):
        batches.append(original(run, seed))
        return batches[-1]

    monkeypatch.setattr(derivation_run.DerivationRun, "_batch", recorded)
    target = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        target.weight.copy_(gain * torch.eye(3).view(3, 3, 1, 1))
    derived(target, forget="noise=0.1", ground_truth="own_output", batch=4)
    x, gt = (torch.cat(values) for values in zip(*batches, strict=True))
    clean = torch.arange(len(x)) % 4 < 2
    torch.testing.assert_close(gt[clean], gain * x[clean])
    if gain == 1.0:
        torch.testing.assert_close(gt, x)
    elif gain == 0.0:  # the noise is all that is left
        assert gt[~clean].std() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"images": photographs() * 255}, ValueError, r"under 0, values from .* divide images"),
        ({"images": photographs() - 0.5}, ValueError, r"expected \[0, 1\]"),
        ({"images": photographs() * math.nan}, ValueError, r"values from nan"),
        ({"images": photographs()[:, :1]}, ValueError, "with C = 3, which the network takes"),
        ({"images": photographs()[0]}, ValueError, r"expected \[N, C, H, W\]"),
        ({"images": []}, ValueError, "photographs holds none"),
        ({"images": ["a"]}, TypeError, "under 0, str; expected a floating-point"),
        ({"images": [torch.zeros(3, 24, 24, dtype=torch.uint8)]}, TypeError, "torch.uint8"),
        ({"images": 3}, TypeError, "photographs is a int; expected a folder"),
        ({"images": photographs(4, 7)}, ValueError, "7×7; expected sides of at least 8 pixels"),
        ({"images": photographs(2, 8)}, ValueError, "hold 1 patches of 8×8 beside the crops"),
        ({"images": photographs(1, 8)}, ValueError, "hold 0 patches"),
        ({"images": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"scale": 3}, ValueError, "scale is 3 and the network enlarges by 2"),
        ({"scale": 0}, ValueError, "scale is 0; expected a positive integer"),
        ({"iterations": 0}, ValueError, "iterations is 0"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate is -1.0"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"patch": 0}, ValueError, "patch is 0"),
        ({"patch": 2.5}, ValueError, "patch is 2.5"),
        ({"pad": -1}, ValueError, "pad is -1"),
        ({"pad": 4}, ValueError, "pad is 4 for patches of 4 pixels"),
        ({"seed": "a"}, TypeError, "seed is 'a'; expected an integer"),
        ({"ground_truth": "own"}, ValueError, "expected one of photograph, own_output"),
        ({"keep": "rust=3"}, ValueError, "keep: .*rust"),
        ({"keep": 3}, TypeError, "keep is 3; expected a recipe"),
        ({"forget": ["clean"]}, ValueError, "forget holds 'clean', clean images"),
        ({"forget": ["noise=0.1", "noise=0.1"]}, ValueError, "forget holds 'noise=0.1' twice"),
        ({"keep": "blur=2", "forget": "blur=2"}, ValueError, "both name 'blur=2'"),
        ({"keep": Degradation(blur=2.0, scale=3)}, ValueError, "keep: .*scale 3"),
    ],
)
def test_refuses(options, error, text):
    with pytest.raises(error, match=text):
        derived(**options)


class Detached(nn.Module):
    """Cuts its gradient off."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x).detach()


class Integers(nn.Module):
    """Has integer weights alone, as a quantised network."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.int8), requires_grad=False)

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (Detached(), ValueError, "its output has no gradient"),
        (Integers(), ValueError, "no floating-point parameter, only torch.int8"),
        (nn.Identity(), ValueError, "no floating-point parameter, only none"),
        (network().requires_grad_(False), ValueError, "target is frozen"),
        ("target.pth", TypeError, "target is a str; expected a torch.nn.Module"),
        (nn.Conv2d(3, 6, 3, padding=1), ValueError, r"makes \[6, 4, 4\]"),
    ],
)
def test_refuses_networks_that_cannot_be_trained(target, error, text):
    with pytest.raises(error, match=text):
        derived(target)


def test_refuses_weights_that_are_not_finite():
    target = network()
    with torch.no_grad():
        next(target.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="values that are not finite"):
        derived(target)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_refuses_a_scripted_network():
    with pytest.raises(TypeError, match="target is a scripted module"):
        derived(torch.jit.script(nn.Conv2d(3, 3, 1)))
