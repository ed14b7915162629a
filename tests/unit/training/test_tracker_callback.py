"""The tracker's callback for PyTorch Lightning, and the examples of its page."""

import copy
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases.tracker import batch, network, optimizer_of, tracker_of, train
from torch import nn

from faigfast.training import Rankings


class FakeTrainer:
    """Calls a callback as Lightning's Trainer does, for a plain loop."""

    def __init__(self, optimizer):
        self.optimizers, self.global_step = [optimizer], 0


@pytest.fixture
def fake_lightning(monkeypatch):
    module = type(sys)("lightning.pytorch")
    module.Callback = object
    monkeypatch.setitem(sys.modules, "lightning", type(sys)("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)


def test_the_callback_counts_by_global_step_and_restricts(fake_lightning):
    module = nn.Module()
    module.net = network()
    optimizer = optimizer_of(module.net)
    tracker = tracker_of(module.net)
    callback = tracker.lightning("net", "discovered", "noise")
    trainer = FakeTrainer(optimizer)
    callback.on_train_start(trainer, module)
    for trainer.global_step in (0, 0, *range(1, 9)):
        if trainer.global_step:
            train(module.net, optimizer, 1)
        if trainer.global_step == 6:
            frozen = copy.deepcopy(module.net[0].bias)
        callback.on_train_batch_end(trainer, module, None, None, 0)
    assert tracker.rankings.steps == (5,)
    assert torch.equal(module.net[0].bias, frozen)
    callback.on_train_end(trainer, module)
    train(module.net, optimizer, 1)
    assert not torch.equal(module.net[0].bias, frozen)


def test_without_lightning_the_error_says_how_to_install_it(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install lightning"):
        tracker_of(network()).lightning()


SCRIPT = """
import lightning.pytorch as lightning
import torch
from torch import nn
from cases.networks import images
from faigfast import Tracker

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    def training_step(self, batch):
        return nn.functional.l1_loss(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

torch.manual_seed(0)
module = Module()
tracker = Tracker(module.net, images(1, dtype=torch.float32), every=4, steps=2, fraction=0.1)
masks, weights = [], []
class Record(lightning.Callback):
    def on_train_batch_end(self, trainer, module, *rest):
        if trainer.global_step in (4, 7):
            masks.append(tracker.masks(module.net))
            weights.append({n: p.detach().clone() for n, p in module.net.named_parameters()})
data = torch.utils.data.TensorDataset(*images(8, dtype=torch.float32))
trainer = lightning.Trainer(
    accelerator="cpu", max_steps=8, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
    callbacks=[tracker.lightning("net", train="discovered"), Record()],
)
trainer.fit(module, torch.utils.data.DataLoader(data, 2))
for name, mask in masks[0].items():
    assert torch.equal(weights[0][name][~mask], weights[1][name][~mask]), name
assert any((weights[0][n] != weights[1][n])[m].any() for n, m in masks[0].items())
print(*tracker.rankings.steps)
"""


@pytest.mark.slow
def test_a_training_of_lightning_itself():
    if importlib.util.find_spec("lightning") is None:  # importing it takes seconds
        pytest.skip("needs lightning")
    tests = os.fspath(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": tests}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-2:] == ["4", "8"]


def test_the_documents_examples_run(fake_lightning, monkeypatch, tmp_path, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs" / "how-to" / "track-a-training.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    net, trainers = network(), []
    module = nn.Module()
    module.net, given = net, batch()

    class Trainer(FakeTrainer):
        def __init__(self, max_steps, callbacks):
            super().__init__(optimizer_of(net))
            self.callback, self.max_steps = callbacks[0], max_steps
            trainers.append(self)

        def fit(self, module, loader):
            self.callback.on_train_start(self, module)
            for _ in range(self.max_steps):
                self.global_step += 1
                train(module.net, self.optimizers[0], 1)
                self.callback.on_train_batch_end(self, module, None, None, 0)

    sys.modules["lightning.pytorch"].Trainer = Trainer
    names = {
        "net": net, "optimizer": optimizer_of(net), "images": given, "module": module,
        "batches": [(given["lq"]["blur"], given["gt"])] * 200, "loader": None,
    }  # fmt: skip
    for block, steps in zip(blocks, ((100, 200), (100, 200, 300, 400), (100, 200)), strict=True):
        exec(compile(block, page.name, "exec"), names)
        assert names["tracker"].rankings.steps == steps
    assert "barrier_median" in capsys.readouterr().out and len(trainers) == 1
    assert len(Rankings.load("rankings.safetensors").top("noise")) == len(names["filters"])
