"""The precision that "auto" chooses on a GPU, simulated by a CPU and PyTorch's 16 bits."""

from types import SimpleNamespace

import pytest
import torch
from cases.networks import images, kinked, pair

from faigfast import attribute
from faigfast.attribution import attributor as attribution
from faigfast.backend.gpu import auto_precision
from faigfast.backend.gpu.auto_precision import decide, possible
from faigfast.integration.cautions import without_cautions


@pytest.fixture
def measuring(monkeypatch):
    """Let a CPU measure precisions as a GPU does; lists the compared precisions."""
    monkeypatch.setattr(attribution, "TYPES", ("cpu",))
    monkeypatch.setattr(auto_precision, "_known", {})
    compared = []
    differences = auto_precision.differences

    def watched(result, exact):
        compared.append(result.precision)
        return differences(result, exact)

    monkeypatch.setattr(auto_precision, "differences", watched)
    return compared


def errors_of(**errors):
    def error(precision):
        if isinstance(errors[precision], Exception):
            raise errors[precision]
        return torch.tensor(errors[precision], dtype=torch.float64)

    return error


BOUND = torch.tensor([1e-2, 1e-3])


@pytest.mark.parametrize(
    "errors, expected, told",
    [
        (dict(fp16=[9e-3, 9e-4]), "fp16", ["fp16 is off by 9.0e-03"]),
        (dict(fp16=[9e-3, 2e-3], bf16=[1e-3, 1e-4]), "bf16",
         ["fp16 is off by 9.0e-03", "bf16 is off by 1.0e-03"]),
        (dict(fp16=[float("nan"), 1e-4], bf16=ValueError("it is not finite")), "fp32",
         ["fp16 is off by nan", "bf16 fails: it is not finite"]),
        (dict(fp16=RuntimeError("no kernel\nat all"), bf16=[1e-3, 1e-3]), "bf16",
         ["fp16 fails: no kernel", "bf16 is off by 1.0e-03"]),
        ({}, "fp32", []),
    ],
)  # fmt: skip
def test_the_first_below_the_bound_everywhere_is_taken(errors, expected, told):
    assert decide(errors_of(**errors), BOUND, errors) == (expected, told)


def test_out_of_memory_is_not_taken_for_an_answer():
    with pytest.raises(torch.OutOfMemoryError):
        decide(errors_of(fp16=torch.OutOfMemoryError("full")), BOUND, ["fp16"])


def batch_of(n=2):
    (x, gt), (other, _) = (images(n, dtype=torch.float32, seed=seed) for seed in (0, 1))
    return {"lq": {"blur": x, "noise": other}, "gt": gt}


@pytest.mark.parametrize("rule, steps", [("midpoint", 3), ("left", 4), ("gauss-legendre", 2)])
def test_few_points_leave_room_for_16_bits(measuring, rule, steps):
    nets, batch = pair(kinked, torch.float32), batch_of()
    result = attribute(*nets, batch, backend="torch", rule=rule, steps=steps)
    assert result.precision == "fp16" and measuring == ["fp16"]
    (note,) = [note for note in result.notes if note.startswith("precision: ")]
    assert note.startswith("precision: fp16, measured on a crop of 6×5; the rule's own error is ")
    # The estimated error of the rule, and the measured error of the precision.
    rule_error, own = (float(part.split()[-1]) for part in note.split("; ")[1:])
    exact = attribute(*nets, batch, backend="reference", precision="fp64", steps=100)
    for name in exact.degradations:
        expected = exact.scores(name)[0]
        error = (result.scores(name)[0].double() - expected).abs().sum() / expected.sum()
        assert own <= rule_error and 0.1 * rule_error < error < 10 * rule_error, note


def test_an_accurate_rule_asks_for_float32(measuring):
    nets, batch = pair(dtype=torch.float32), batch_of()  # smooth
    result = attribute(*nets, batch, backend="torch", rule="gauss-legendre", steps=40)
    assert result.precision == "fp32" and measuring == ["fp16", "bf16"]
    assert any("fp16 is off by" in note and "bf16 is off by" in note for note in result.notes)


@pytest.mark.parametrize("tol, expected", [(0.3, "fp16"), (1e-5, "fp32")])
def test_a_tolerance_is_the_bound(measuring, tol, expected):
    nets = pair(kinked, torch.float32)
    result = attribute(*nets, batch_of(), backend="torch", tol=tol, steps=27)
    assert result.precision == expected
    assert any(f"; tol is {tol:.1e}; fp16 is off by" in note for note in result.notes)


def test_what_overflows_in_fp16_is_computed_in_bf16(measuring):
    nets, (x, gt) = pair(kinked, torch.float32), images(2, dtype=torch.float32)
    result = attribute(*nets, (x, 3e4 * gt), backend="torch", tol=0.3, steps=27)
    assert result.precision == "bf16" and measuring == ["bf16"]
    assert any("fp16 fails: " in note and "finite" in note for note in result.notes), result.notes


def test_the_same_networks_and_settings_keep_their_precision(measuring):
    nets = pair(kinked, torch.float32)
    parts = [batch_of(), batch_of(1)]
    given = dict(backend="torch", steps=3)
    result = attribute(*nets, iter(parts), **given)
    assert result.images == 3 and result.precision == "fp16" and measuring == ["fp16"]
    again = attribute(*nets, parts[1], **given)
    assert measuring == ["fp16"]
    assert without_cautions(again.notes) == without_cautions(result.notes)
    result.merge(again)
    attribute(*nets, parts[1], **given | dict(steps=4))
    assert measuring == ["fp16"] * 2


def test_nothing_is_measured_where_a_precision_is_given_or_none_is_faster(measuring, monkeypatch):
    nets, batch = pair(kinked, torch.float32), batch_of(1)
    given = dict(steps=3, backend="torch")
    assert attribute(*nets, batch, precision="fp32", **given).precision == "fp32"
    double = [net.double() for net in pair(kinked)]
    wide = {"lq": {k: v.double() for k, v in batch["lq"].items()}, "gt": batch["gt"].double()}
    assert attribute(*double, wide, **given).precision == "fp64"
    assert attribute(*nets, batch, backend="reference", steps=3).precision == "fp32"
    monkeypatch.setattr(attribution, "TYPES", ("cuda",))
    assert attribute(*nets, batch, **given).precision == "fp32"
    assert measuring == []


def test_a_crop_that_the_network_does_not_take_leaves_float32(measuring, monkeypatch):
    monkeypatch.setattr(auto_precision, "corner", lambda x, gt, side: (x[..., :1, :1], gt))
    result = attribute(*pair(kinked, torch.float32), batch_of(1), backend="torch", steps=3)
    assert result.precision == "fp32"
    assert any("fp32, since a crop cannot be compared: " in note for note in result.notes)


def test_a_batch_that_is_out_of_range_is_attributed_in_float32(measuring):
    nets, (x, gt) = pair(kinked, torch.float32), images(2, dtype=torch.float32)
    gt[1] *= 3e4  # the other image is measured
    given = dict(backend="torch", steps=3)
    result = attribute(*nets, (x, gt), **given)
    assert result.precision == "fp32" and measuring == ["fp16"]
    assert any("fp32, since in fp16, as measured on a crop, " in note for note in result.notes)
    plain = attribute(*nets, (x, gt), precision="fp32", **given)
    assert torch.equal(result.scores(), plain.scores())
    parts = [(x[:1], gt[:1]), (x[1:], gt[1:])]
    with pytest.raises(ValueError, match=r"finite.*; precision 'fp16' was measured for the first"):
        attribute(*nets, iter(parts), **given)


def test_precisions_of_the_backends(monkeypatch):
    names = SimpleNamespace(auto="triton")

    def choose(backend, device, precision):
        if precision in ("tf32", "bf16x3") and names.auto != "triton":
            raise ValueError
        return (names.auto if backend == "auto" else backend), ""

    monkeypatch.setattr(auto_precision, "choose", choose)
    assert possible("auto", "cuda") == ["fp16", "bf16", "tf32", "bf16x3"]
    assert possible("triton", "cuda") == ["fp16", "bf16", "tf32", "bf16x3"]
    assert possible("cuda", "cuda") == possible("torch", "cuda") == ["fp16", "bf16"]
    assert possible("reference", "cuda") == possible("cpu", "cpu") == []
    names.auto = "torch"
    assert possible("auto", "cuda") == ["fp16", "bf16"]
