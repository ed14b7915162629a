"""Training of one network: its recipe, and what a stopped run resumes."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from cases import training
from cases.training import SHORT, Dies, equal, files, network, patches
from torch import nn
from torch.nn import functional as F

from faigfast.data.patches import Patches
from faigfast.io.tensor_file import load_tensors
from faigfast.training.saved_state import _from_tensors
from faigfast.training.trainer import Schedule, train

frequent = training.frequent


def test_training_lowers_the_loss_and_averages_the_weights(tmp_path):
    net = network()
    with torch.no_grad():
        net.conv_last.bias.fill_(0.2)
    start = copy.deepcopy(net.state_dict())
    schedule = Schedule(iterations=120, learning_rate=5e-3, batch=4)
    state = torch.get_rng_state()
    average = train(net, patches(), schedule, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert average.keys() == start.keys()
    assert not equal(average, start) and not equal(average, net.state_dict())
    lq, gt = patches().batch(16, seed=10**6)
    with torch.no_grad():
        losses = []
        for weights in (start, average):
            net.load_state_dict(weights)
            losses.append(F.l1_loss(net(lq), gt).item())
    assert losses[1] < losses[0] * 0.95
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in log] == [100, 120]
    assert log[1]["loss"] < log[0]["loss"] and log[1]["rate"] < log[0]["rate"] < 5e-3
    assert all(line["seconds"] > 0 for line in log)
    assert files(tmp_path) == ["log.jsonl", "run.json", "state.part"]


def test_the_recipe_is_adam_on_the_absolute_error_along_a_cosine_with_an_average(
    tmp_path, monkeypatch
):
    # Adam amplifies rounding of gradients near zero, so both use one layout.
    net, twin = network(), network().to(memory_format=torch.channels_last)
    average = train(net, patches(), SHORT, tmp_path)
    optimizer = torch.optim.Adam(twin.parameters(), 1e-2, betas=(0.9, 0.99))
    mean = {key: value.clone() for key, value in twin.state_dict().items()}
    saved = {}
    original = Patches.batch

    def record(self, size, seed):
        saved[len(saved)] = original(self, size, seed)
        return saved[len(saved) - 1]

    monkeypatch.setattr(Patches, "batch", record)
    train(network(), patches(), SHORT, tmp_path / "again")
    assert len(saved) == 12
    for i, (lq, gt) in saved.items():
        for group in optimizer.param_groups:
            group["lr"] = 1e-7 + (1e-2 - 1e-7) * (1 + math.cos(math.pi * i / 12)) / 2
        optimizer.zero_grad()
        (twin(lq.to(memory_format=torch.channels_last)) - gt).abs().mean().backward()
        optimizer.step()
        decay = min(0.999, (1 + i) / (10 + i)) if i else 0  # the average begins at iteration 0
        for key, value in twin.state_dict().items():
            mean[key] = decay * mean[key] + (1 - decay) * value
    for key in mean:
        torch.testing.assert_close(average[key], mean[key], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            net.state_dict()[key], twin.state_dict()[key], rtol=1e-3, atol=1e-5
        )


def test_the_seed_chooses_the_patches(tmp_path):
    results = []
    for seed in (0, 0, 1, 2):
        schedule = Schedule(iterations=3, learning_rate=1e-2, batch=2, seed=seed)
        results.append(train(network(), patches(), schedule, tmp_path / str(len(results))))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2]) and not equal(results[2], results[3])


def test_every_iteration_has_patches_of_its_own(tmp_path, monkeypatch):
    seen = []
    original = Patches.batch

    def record(self, size, seed):
        batch = original(self, size, seed)
        seen.append(batch[0])
        return batch

    monkeypatch.setattr(Patches, "batch", record)
    for seed in (0, 1):
        schedule = Schedule(iterations=5, learning_rate=1e-2, batch=2, seed=seed)
        train(network(), patches(), schedule, tmp_path / str(seed))
    assert len({batch.numpy().tobytes() for batch in seen}) == 10


@pytest.mark.parametrize("after", [0, 3, 4, 5, 11])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, frequent, after, error):
    uninterrupted = train(Dies(network(), 99), patches(noise=(0.1,)), SHORT, tmp_path / "whole")
    with pytest.raises(error):
        train(Dies(network(), after, error), patches(noise=(0.1,)), SHORT, tmp_path / "cut")
    assert set(files(tmp_path / "cut")) <= {"log.jsonl", "run.json", "state.part"}
    # A saved state replaces the network's weights at the restart.
    fresh = network(seed=0 if after < 4 else 5)
    resumed = train(Dies(fresh, 99), patches(noise=(0.1,)), SHORT, tmp_path / "cut")
    assert equal(uninterrupted, resumed)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    for a, b in zip(*logs, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


SCRIPT = """
    import os, signal, sys, torch
    torch.set_num_threads(int(sys.argv[2]))  # rounding, and with it every sign, depends on them
    import faigfast.training.trainer as training
    from cases.training import SHORT, network, patches
    training.SAVE_EVERY = training.LOG_EVERY = 4
    net, calls = network(), []
    def kill(*_):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
    net.register_forward_hook(kill)
    training.train(net, patches(), SHORT, sys.argv[1])
"""


def test_a_process_that_was_killed_is_resumed(tmp_path, frequent):
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder),
         str(torch.get_num_threads())],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert _from_tensors(*load_tensors(folder / "state.part"))["done"] == 4
    assert files(folder) == ["log.jsonl", "run.json", "state.part"]
    resumed = train(network(seed=7), patches(), SHORT, folder)
    uninterrupted = train(network(), patches(), SHORT, tmp_path / "whole")
    assert equal(uninterrupted, resumed)


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    first = train(network(), patches(), SHORT, tmp_path)
    before = (tmp_path / "state.part").read_bytes()
    assert equal(train(Dies(network(1), 0).net, patches(), SHORT, tmp_path), first)
    assert (tmp_path / "state.part").read_bytes() == before


@pytest.mark.parametrize(
    "schedule, recipe",
    [
        (Schedule(iterations=13, learning_rate=1e-2, batch=2), None),
        (Schedule(iterations=12, learning_rate=2e-2, batch=2), None),
        (Schedule(iterations=12, learning_rate=1e-2, batch=3), None),
        (Schedule(iterations=12, learning_rate=1e-2, batch=2, seed=1), None),
        (Schedule(iterations=12, learning_rate=1e-2, batch=2, ema_decay=0.9), None),
        (SHORT, {"blur": [2.0]}),
    ],
)
def test_a_state_of_another_run_is_refused(tmp_path, schedule, recipe):
    train(network(), patches(), SHORT, tmp_path)
    before = (tmp_path / "state.part").read_bytes()
    net = network(3)
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"holds the results of another run: "):
        train(net, patches(), schedule, tmp_path, recipe=recipe)
    assert equal(net.state_dict(), state)
    assert (tmp_path / "state.part").read_bytes() == before


def test_recipes_with_tuples_are_those_that_were_saved(tmp_path):
    recipe = {"blur": (2.0,), "sizes": {"a": [1, 2]}}
    first = train(network(), patches(), SHORT, tmp_path, recipe=recipe)
    assert equal(train(network(), patches(), SHORT, tmp_path, recipe=recipe), first)


@pytest.mark.parametrize("content", [b"", b"text", "half", "flipped"])
def test_a_damaged_state_is_named_and_the_training_starts_again(tmp_path, content):
    first = train(network(), patches(), SHORT, tmp_path)
    path = tmp_path / "state.part"
    before = path.read_bytes()
    flipped = before[:-500] + bytes([before[-500] ^ 1]) + before[-499:]
    path.write_bytes({"half": before[:1000], "flipped": flipped}.get(content, content))
    with pytest.warns(UserWarning, match=r"state\.part is damaged"):
        assert equal(train(network(), patches(), SHORT, tmp_path), first)


def test_a_log_that_a_kill_cut_short_is_complete_after_resuming(tmp_path, frequent):
    train(network(), patches(), SHORT, tmp_path)
    log = tmp_path / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])
    train(network(), patches(), SHORT, tmp_path)
    assert log.read_text() == whole


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path, frequent):
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = network(), 0

        def forward(self, x):
            self.calls += 1
            return self.net(x) * (float("nan") if self.calls == 6 else 1)

    with pytest.raises(FloatingPointError, match="loss is nan at iteration 5"):
        train(Explodes(), patches(), SHORT, tmp_path)
    state = _from_tensors(*load_tensors(tmp_path / "state.part"))
    assert state["done"] == 4
    assert all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"ema_decay": -0.1}, "ema_decay is -0.1"),
    ],
)
def test_schedules_that_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**{"iterations": 1, "learning_rate": 1e-3, **options})
