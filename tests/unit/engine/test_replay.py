"""Graphs of chunks, with a stand-in for CUDA's: a replay runs the captured function again."""

import pytest
import torch
from cases.networks import images, pair
from torch import nn

from faigfast import attribute
from faigfast.engine import integrate, replay
from faigfast.engine.memory import Chunk
from faigfast.engine.replay import Replays


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x):
        return x + self.last(self.first(x).relu())


@pytest.fixture
def captures(monkeypatch):
    """Count captures and replays on a CPU, in chunks of three points and two images."""
    counts = {"captured": 0, "replayed": 0}

    def capture(run):
        counts["captured"] += 1

        def again():
            counts["replayed"] += 1
            run()

        return again

    prepare = integrate.Engine.__post_init__

    def with_graphs(engine):
        prepare(engine)
        engine.replays = Replays(engine.notes, capture)

    monkeypatch.setattr(integrate.Engine, "__post_init__", with_graphs)
    monkeypatch.setattr(integrate, "preferred_chunk", lambda *_: Chunk(3, images=2))
    return counts


def batch(count=4):
    return images(count, size=(6, 5), dtype=torch.float64)


OPTIONS = dict(rule="midpoint", backend="torch", precision="fp64")
REFERENCE = dict(rule="midpoint", backend="reference")


def test_replays_give_the_same_scores(captures):
    models, data = pair(Small, torch.float64), batch()
    exact = attribute(*models, data, steps=9, **REFERENCE, precision="fp64")
    result = attribute(*models, data, steps=9, **OPTIONS)
    # Three chunks of each two images: the first compiles, the second is captured and compared.
    assert captures == {"captured": 1, "replayed": 5}
    torch.testing.assert_close(result.scores(), exact.scores())
    torch.testing.assert_close(result.completeness, exact.completeness)
    assert not any("CUDA graph" in note for note in result.notes)


def test_replays_average_slopes_and_keep_phases_apart(captures):
    models, data = pair(Small, torch.float64), batch()
    exact = attribute(*models, data, rule="averaged", steps=6, backend="reference")
    result = attribute(*models, data, **{**OPTIONS, "rule": "averaged"}, steps=6)
    # Six points of one image at once: 2 chunks in the captured run and the comparison, 2 replays.
    assert captures == {"captured": 1, "replayed": 3}
    torch.testing.assert_close(result.scores(), exact.scores())
    torch.testing.assert_close(result.error, exact.error)


def test_parts_of_other_sizes_have_graphs_of_their_own(captures):
    models, data = pair(Small, torch.float64), batch(6)
    exact = attribute(*models, data, steps=8, **REFERENCE, precision="fp64")
    result = attribute(*models, data, steps=8, **OPTIONS)  # 3, 3 and 2 points
    assert captures["captured"] == 2
    torch.testing.assert_close(result.scores(), exact.scores())


def test_nothing_is_captured_for_a_single_run(captures):
    attribute(*pair(Small, torch.float64), batch(2), steps=3, **OPTIONS)
    assert captures == {"captured": 0, "replayed": 0}


def test_objectives_of_others_run_without_graphs(captures):
    def own(output, gt):
        return (output - gt).abs().flatten(1).sum(1)

    attribute(*pair(Small, torch.float64), batch(), steps=9, objective=own, **OPTIONS)
    assert captures["captured"] == 0


def test_chunks_of_many_bytes_run_without_graphs(captures, monkeypatch):
    monkeypatch.setattr(replay, "MOST_BYTES", 1000)
    attribute(*pair(Small, torch.float64), batch(), steps=9, **OPTIONS)
    assert captures["captured"] == 0


def refused(run):
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def out_of_memory(run):
    raise torch.OutOfMemoryError("out of memory")


def wrong(run):
    return lambda: None


@pytest.mark.parametrize(
    "capture, why",
    [
        (refused, "operation not permitted when stream is capturing"),
        (out_of_memory, "their memory does not fit"),
        (wrong, "a replay differs by 1.0e+00"),
    ],
    ids=["refused", "out of memory", "wrong"],
)
def test_what_cannot_be_captured_runs_as_before_and_says_so(capture, why, captures, monkeypatch):
    models, data = pair(Small, torch.float64), batch()
    exact = attribute(*models, data, steps=9, **REFERENCE, precision="fp64")
    prepare = integrate.Engine.__post_init__

    def failing(engine):
        prepare(engine)
        engine.replays.capture = capture

    monkeypatch.setattr(integrate.Engine, "__post_init__", failing)
    result = attribute(*models, data, steps=9, **OPTIONS)
    torch.testing.assert_close(result.scores(), exact.scores())
    assert sum(f"without CUDA graphs ({why})" in note for note in result.notes) == 1


def test_gradients_of_16_bits_are_scaled_in_a_graph_too(captures):
    models, data = pair(Small, torch.float32), [part.float() for part in batch()]
    plain = attribute(*models, tuple(data), steps=9, **REFERENCE, precision="fp32")
    result = attribute(*models, tuple(data), steps=9, **{**OPTIONS, "precision": "fp16"})
    assert captures["replayed"] == 5
    a, b = result.scores(), plain.scores()
    assert (a - b).abs().sum() <= 2e-2 * b.abs().sum()
