import math

import pytest
import torch

import faigfast
from faigfast.analysis.demo import CROP, DEGRADATIONS
from faigfast.analysis.evaluation import crops, evaluate, mean_and_interval, restore
from faigfast.analysis.masking import mask, random_sets
from faigfast.analysis.metrics import psnr
from faigfast.analysis.report.tables import completeness_table, masking_table, verdicts
from faigfast.data import KEPT_OUT, Degradation, photographs
from faigfast.zoo.pairs import shipped_pair

ATTRIBUTED, MEASURED = slice(0, None, 24), slice(0, None, 15)  # of the demo's crops
LEAST_GAIN = {"blur": 2.0, "noise": 5.0}  # target's gain over the baseline in dB


@pytest.fixture(scope="module")
def pair():
    return shipped_pair()


@pytest.fixture(scope="module")
def data():
    return crops(photographs(KEPT_OUT), DEGRADATIONS, CROP)


@pytest.fixture(scope="module")
def result(pair, data):
    attributed = data.part(ATTRIBUTED)
    return faigfast.attribute(*pair, {"lq": attributed.lq, "gt": attributed.gt}, steps=4)


@pytest.fixture(scope="module")
def masking(pair, data, result):
    kept = data.without(ATTRIBUTED).part(MEASURED)
    return mask(*pair, result, kept, fractions=(0.01, 0.05), border=2)


def test_crops_are_cuts_of_the_degraded_photograph():
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))
    data = crops({"a": image, "small": image[:, :20]}, DEGRADATIONS, size=24, seed=3)
    assert data.names == ("a 0,0", "a 0,1", "a 1,0", "a 1,1")
    assert torch.equal(data.gt[3], image[:, 24:48, 24:48])
    degraded = DEGRADATIONS["noise"](image[None, :, :48, :48], seed=3)
    assert torch.equal(data.lq["noise"][1], degraded[0, :, :12, 12:24])


def test_parts_of_the_crops_are_disjoint_and_complete(data):
    chosen = slice(1, None, 3)
    both = data.part(chosen).names + data.without(chosen).names
    assert sorted(both) == sorted(data.names)
    assert torch.equal(data.without(chosen).lq["blur"][0], data.lq["blur"][0]) and torch.equal(
        data.part(chosen).gt[0], data.gt[1]
    )


@pytest.mark.parametrize(
    ("recipes", "size", "words"),
    [
        (DEGRADATIONS, 65, "crops of 65"),
        ({"a": Degradation(), "b": Degradation(scale=4)}, 64, "scale \\[2, 4\\]"),
        ({}, 64, "expected one scale"),
        (DEGRADATIONS, 4096, "no photograph holds a crop"),
    ],
)
def test_crops_that_are_refused(recipes, size, words):
    with pytest.raises(ValueError, match=words):
        crops({"a": torch.rand(3, 80, 80)}, recipes, size)


def test_restoring_in_parts_changes_nothing(pair, data):
    x = data.lq["blur"][:11]
    pair[1].train()
    y = restore(pair[1], x)
    assert pair[1].training and not y.requires_grad
    pair[1].eval()
    with torch.no_grad():
        torch.testing.assert_close(y, pair[1](x), rtol=1e-5, atol=1e-5)


def test_mean_and_interval():
    mean, half = mean_and_interval([1.0, 2.0, 3.0, 6.0])
    assert mean == 3 and half == pytest.approx(1.96 * math.sqrt(14 / 3) / 2)
    assert math.isnan(mean_and_interval([1.0])[1])


def test_random_sets_are_seeded_and_as_large(result):
    top = result.top("blur", 0.02)
    first, again = random_sets(top, 3), random_sets(top, 3)
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(first, again, strict=True))
    assert {len(one) for one in first} == {len(top)}
    assert not torch.equal(first[0].indices, first[1].indices)


def test_a_measurement_is_a_swap_measured(pair, data, result, masking):
    kept = data.without(ATTRIBUTED).part(MEASURED)
    network = result.top("noise", 0.05).swap(*pair)
    expected = psnr(restore(network, kept.lq["blur"]), kept.gt, border=2)
    assert torch.equal(masking.find("noise", 0.05).psnr["blur"], expected)
    runs = [
        evaluate(one.swap(*pair), kept, border=2)["noise"]
        for one in random_sets(result.top("blur", 0.01))
    ]
    assert torch.equal(masking.find("random", 0.01).psnr["noise"], torch.stack(runs).mean(0))


def test_the_papers_effect_on_kept_out_photographs(masking):
    for name, least in LEAST_GAIN.items():
        assert float((masking.target[name] - masking.baseline[name]).mean()) > least
    blur, noise, chance = (masking.find(name, 0.01) for name in ("blur", "noise", "random"))
    assert masking.lost(blur, "blur") > 0.6
    assert masking.lost(blur, "noise") < 0.1
    assert masking.lost(noise, "noise") > masking.lost(chance, "noise") + 0.2


def test_tables_and_sentences_hold_the_measurements(masking, result):
    head, rows = masking_table(masking)
    assert all(len(row) == len(head) for row in rows) and len(rows) == 2 + len(masking.masked)
    target = dict(zip(head, rows[1], strict=False))
    assert target["network"] == "target"
    assert target["blur, dB"] == f"{float(masking.target['blur'].mean()):.2f}"
    said = verdicts(masking)
    share = 100 * masking.lost(masking.find("blur", 0.01), "blur")
    assert len(said) == 2 and f"undoes {share:.0f} %" in said[0]
    head, rows = completeness_table(result)
    assert [row[0] for row in rows] == ["blur", "noise"]
    assert rows[0][head.index("worst")] == f"{float(result.completeness[0].max()):.2e}"
