"""The findings as top-level functions that take the batch of `attribute`."""

import pytest
import torch
from cases.networks import kinked, pair

import faigfast
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.masking import mask as mask_crops
from faigfast.data.patches import Patches
from faigfast.training import Schedule


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def networks():
    return pair(kinked, torch.float32)


@pytest.fixture(scope="module")
def batch():
    gt = rand(3, 3, 8, 8)
    noisy = (gt + 0.2 * rand(3, 3, 8, 8, seed=1)).clamp(0, 1)
    return {"lq": {"blur": gt * 0.7 + 0.1, "noise": noisy}, "gt": gt}


@pytest.fixture(scope="module")
def result(networks, batch):
    return faigfast.attribute(*networks, batch, steps=2)


def split(batch):
    """The same images as batches of one and two, from an iterator."""
    for part in (slice(0, 1), slice(1, 3)):
        lq = {name: x[part] for name, x in batch["lq"].items()}
        yield {"lq": lq, "gt": batch["gt"][part]}


def test_mask_attributes_and_measures(networks, batch):
    whole = faigfast.mask(*networks, batch, fractions=(0.2,), steps=2)
    parts = faigfast.mask(*networks, split(batch), fractions=(0.2,), steps=2)
    assert [m.filters for m in whole.masked] == [m.filters for m in parts.masked]
    for one, other in zip(whole.masked, parts.masked, strict=True):
        for name in ("blur", "noise"):
            torch.testing.assert_close(one.psnr[name], other.psnr[name], rtol=1e-4, atol=1e-3)
            assert other.psnr[name].shape == (3,)
    assert whole.photographs == parts.photographs == ("0", "1", "2")
    assert {m.method for m in whole.masked} == {"faig", "random", "random of the same layers"}


def test_mask_takes_a_result_contrasts_in_words_and_several_truths(networks, batch, result):
    truths = {**batch, "gt": {"blur": batch["gt"], "noise": batch["gt"].clone()}}
    options = {"result": result, "fractions": (0.2,), "contrasts": ["blur:"], "border": 0}
    one, two = (faigfast.mask(*networks, data, **options) for data in (batch, truths))
    assert one.contrasts == (Contrast("blur:", "blur", ()),)
    assert list(two.target) == ["blur", "noise"]
    for a, b in zip(one.masked, two.masked, strict=True):
        assert all(torch.equal(a.psnr[name], b.psnr[name]) for name in ("blur", "noise"))


def test_biases_move_with_whole_channels(networks, batch, result):
    given = {"result": result, "fractions": (1.0,), "biases": True}
    masked = faigfast.mask(*networks, batch, **given).find("blur", 1.0)
    assert masked.biases == 7
    everything = {"all": faigfast.FilterSet(range(24), filter_index=result.index)}
    run = faigfast.modulate(*networks, batch, sets=everything, strengths=(0,), biases=True)
    assert torch.equal(run.find(all=0)["psnr"]["blur"], masked.psnr["blur"])


def test_the_border_is_the_enlargement(networks, batch, result):
    given = {"result": result, "fractions": (0.2,)}
    default, one, none = (
        faigfast.mask(*networks, batch, **given, **border)
        for border in ({}, {"border": 1}, {"border": 0})
    )
    assert torch.equal(default.target["blur"], one.target["blur"])
    assert not torch.equal(default.target["blur"], none.target["blur"])


def test_modulate_gives_the_two_networks_at_its_ends(networks, batch, result):
    everything = faigfast.FilterSet(range(len(result.index)), filter_index=result.index)
    run = faigfast.modulate(*networks, split(batch), sets={"all": everything}, strengths=(0, 1))
    masking = faigfast.mask(*networks, batch, result=result, fractions=(0.2,))
    assert torch.equal(run.find(all=1)["psnr"]["noise"], masking.target["noise"])
    made = faigfast.modulate(*networks, batch, fraction=0.2, strengths=(0.5,), steps=2)
    assert made.names == ("blur", "noise") and len(made.strengths) == 2


def test_locations_are_measured_for_each_degradation(networks, batch, result):
    truths = {**batch, "gt": {"blur": batch["gt"], "noise": batch["gt"].clone()}}
    options = {"experiments": ("masked", "grafted"), "fraction": 0.2, "result": result}
    one, two = (faigfast.locations(*networks, data, **options) for data in (batch, truths))
    assert [(part.name, part.degradation) for part in two] == [("blur", "blur"), ("noise", "noise")]
    assert torch.equal(
        one[1].values["masked"]["psnr"]["noise"], two[1].values["masked"]["psnr"]["noise"]
    )
    filters = result.top("blur", 0.2)
    with pytest.raises(ValueError, match="sets hold 'jpeg'; expected degradations of the batch"):
        faigfast.locations(*networks, batch, sets={"jpeg": filters})


def test_retrain_resumes_and_joins(networks, batch, result, tmp_path):
    options = {
        "patches": Patches([rand(3, 16, 16)], scale=1, patch=8, noise=(0.1,)),
        "schedule": Schedule(iterations=2, learning_rate=1e-3, batch=2),
        "folder": tmp_path,
        "result": result,
        "fraction": 0.2,
    }
    run = faigfast.retrain(*networks, split(batch), "noise", overwrite=True, **options)
    again = faigfast.retrain(*networks, batch, "noise", **options)
    assert run.psnr("discovered").shape == (3,) and run.photographs == ("0", "1", "2")
    torch.testing.assert_close(run.psnr("all"), again.psnr("all"), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="degradation is 'jpeg'; expected one of blur, noise"):
        faigfast.retrain(*networks, batch, "jpeg", **options)


def test_predict_names_a_label_an_image(networks, batch):
    predictions = faigfast.predict(*networks, split(batch), batch["lq"]["noise"][:2], steps=2)
    assert len(predictions) == 2 and {p.label for p in predictions} <= {"blur", "noise"}
    with pytest.raises(ValueError, match="batch holds the degradations lq; expected two or more"):
        faigfast.predict(*networks, (batch["gt"], batch["gt"]), batch["gt"])
    with pytest.raises(TypeError, match="x is a tuple; expected a tensor of images"):
        faigfast.predict(*networks, batch, (batch["gt"],))


def test_overlap_compares_degradations_alone(networks, batch, result):
    frame = faigfast.overlap(*networks, result=result, fraction=0.5)
    assert frame["contrast"].tolist() == ["blur"] and frame["correlation"][0] > -1
    same = faigfast.overlap(*networks, batch, fraction=0.5, steps=2)
    assert same.equals(frame)
    with pytest.raises(ValueError, match=r"contrasts are \['blur'\]; expected two or more"):
        faigfast.overlap(*networks, result=result, contrasts=["blur"])


def test_distribution_and_importance(networks, result):
    frame = faigfast.distribution(*networks, result=result, fraction=0.5)
    numbers = frame[(frame.contrast == "blur") & (frame.metric == "chosen_count")]
    assert numbers["value"].sum() == 12 and list(numbers["layer"]) == ["0", "2"]
    channels = faigfast.importance(*networks, result=result)
    weights = faigfast.importance(*networks, result=result, by="weight", keep="blur:")
    assert {name: len(x) for name, x in channels.items()} == {"0": 4, "2": 3}
    assert weights["0"].shape == networks[1][0].weight.shape
    with pytest.raises(ValueError, match="by is 'filter'; expected channel or weight"):
        faigfast.importance(*networks, result=result, by="filter")


FINDINGS = [faigfast.mask, faigfast.modulate, faigfast.locations]


@pytest.mark.parametrize("finding", [*FINDINGS, faigfast.distribution])
def test_options_belong_to_the_attribution(finding, networks, batch, result):
    data = () if finding is faigfast.distribution else (batch,)
    with pytest.raises(TypeError, match="steps is given beside result"):
        finding(*networks, *data, result=result, steps=3)
    with pytest.raises(TypeError, match="nonsense"):
        finding(*networks, batch, nonsense=3)


@pytest.mark.parametrize("finding", FINDINGS)
def test_wrong_data(finding, networks, batch, result):
    with pytest.raises(ValueError, match="attribution's baseline is the network"):
        finding(*reversed(networks), batch, result=result)
    with pytest.raises(TypeError, match="result is 3; expected an Attribution"):
        finding(*networks, batch, result=3)
    with pytest.raises(TypeError, match="batch is a int; expected"):
        finding(*networks, 3)
    for border, words in ((-1, "border is -1"), (True, "border is True"), (1.5, "border is 1.5")):
        with pytest.raises((TypeError, ValueError), match=words):
            finding(*networks, batch, result=result, border=border)
    inputs = {**batch, "inputs": {"sigma": 1.0}}
    with pytest.raises(ValueError, match="batch holds inputs; expected networks that take images"):
        finding(*networks, inputs, result=result)


@pytest.mark.parametrize("finding", [faigfast.modulate, faigfast.locations])
def test_wrong_sets(finding, networks, batch, result):
    filters = result.top("blur", 0.2)
    for sets, error, words in (
        ({}, TypeError, "sets are {}; expected filter sets by name"),
        ([filters], TypeError, r"sets are \["),
        ({"blur": filters[:0]}, ValueError, "the set 'blur' is an empty set"),
        ({"blur": [1]}, ValueError, "the set 'blur' is a list"),
    ):
        with pytest.raises(error, match=words):
            finding(*networks, batch, sets=sets)
    with pytest.raises(TypeError, match="sets and result are both given"):
        finding(*networks, batch, sets={"blur": filters}, result=result)


@pytest.mark.parametrize(
    "contrasts, words", [("blur", "contrasts are 'blur'"), ([3], "contrasts hold 3")]
)
def test_wrong_contrasts(networks, batch, result, contrasts, words):
    with pytest.raises(TypeError, match=words):
        faigfast.mask(*networks, batch, result=result, contrasts=contrasts)


@pytest.mark.parametrize("finding", [faigfast.overlap, faigfast.distribution, faigfast.importance])
def test_a_batch_or_a_result(finding, networks, batch, result):
    with pytest.raises(TypeError, match="batch and result: neither given"):
        finding(*networks)
    with pytest.raises(TypeError, match="batch and result: both given"):
        finding(*networks, batch, result=result)


def test_mask_equals_the_analysis_on_crops(networks, batch, result):
    from faigfast.analysis.evaluation import Crops

    crops = Crops(batch["lq"], batch["gt"], ("0 0,0", "1 0,0", "2 0,0"))
    expected = mask_crops(*networks, result, crops, fractions=(0.2,), border=1)
    made = faigfast.mask(*networks, batch, result=result, fractions=(0.2,))
    for one, other in zip(expected.masked, made.masked, strict=True):
        assert torch.equal(one.psnr["blur"], other.psnr["blur"])
