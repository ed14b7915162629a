import pytest
import torch
from cases.analysis import RECIPES, photographs, study_parts  # noqa: F401
from cases.tables import rows, value

import faigfast
from faigfast.analysis.contrasts import split_label
from faigfast.analysis.data_frames import text_table
from faigfast.analysis.evaluation import crops, evenly_spaced, restore
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.prediction import (
    MATCHES,
    Signatures,
    learn,
    own_output_scores,
    predict_degradation,
)
from faigfast.analysis.prediction_trials import (
    PredictionTrial,
    leave_one_photograph_out,
    predict_labelled,
    wilson,
)


def made_up(seed=0, n=6, filters=200):
    """Three labels whose examples differ by known filters and by a random scene."""
    base = torch.rand(filters, generator=torch.Generator().manual_seed(9)).double() + 0.5
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for label in range(3):
        example = base * (1 + 0.05 * torch.randn(n, filters, generator=generator))
        example[:, 20 * label : 20 * label + 20] *= 1.5
        rows.append(example / example.sum(1, keepdim=True))
    return ("clean", "blur-1", "blur-2"), tuple(rows)


@pytest.mark.parametrize("match", MATCHES)
def test_known_differences_are_found(match):
    labels, rows = made_up()
    signatures = Signatures(labels, rows, fraction=0.1)
    for label, unseen in zip(labels, made_up(seed=1)[1], strict=True):
        for prediction in signatures.predict(unseen, match):
            assert prediction.label == label and prediction.margin > 0
            assert prediction.scores[label] == max(prediction.scores.values())
            assert (prediction.degradation, prediction.level) == split_label(label)
    assert signatures.sets[1, 20:40].all() and signatures.sets.sum(1).tolist() == [20, 20, 20]


def test_matches_are_what_they_say():
    labels, rows = made_up()
    signatures = Signatures(labels, rows, fraction=0.1)
    shares = made_up(seed=2)[1][0][:2]
    values = signatures.standardised(shares)
    expected = torch.corrcoef(torch.stack([values[1], signatures.centres[2]]))[0, 1]
    torch.testing.assert_close(signatures.matches(shares)[1, 2], expected)
    top = set(values[0].topk(20).indices.tolist())
    other = set(signatures.centres[1].topk(20).indices.tolist())
    overlap = signatures.matches(shares, "overlap")[0, 1]
    assert float(overlap) == pytest.approx(len(top & other) / 20)
    one = signatures.matches(rows[1][:1], "neighbour")
    assert float(one[0, 1]) == pytest.approx(1.0)  # a learnt image


def test_labels_are_taken_apart():
    assert split_label("blur-2") == split_label("blur 2") == split_label("blur2") == ("blur", "2")
    assert split_label("noise-0.05") == ("noise", "0.05") and split_label("clean") == ("clean", "")


def test_a_trial_counts():
    truth = ("a-1", "a-1", "a-2", "b", "b")
    predicted = ("a-1", "a-2", "a-2", "b", "a-1")
    trial = PredictionTrial(
        ("a-1", "a-2", "b"), truth, predicted, (0.1,) * 5, ("x",) * 5, "overlap"
    )
    assert trial.right().tolist() == [1, 0, 1, 1, 0]
    assert trial.right(exact=False).tolist() == [1, 1, 1, 1, 0]
    assert trial.confusion().tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0.5, 0, 0.5]]
    accuracy = trial.to_frame()
    of_all = {"degradation": "all", "interval": "crops"}
    assert value(accuracy, "label_right", **of_all) == pytest.approx(0.6)
    assert value(accuracy, "degradation_right", **of_all) == pytest.approx(0.8)
    low, high = wilson(4, 5)
    (row,) = rows(accuracy, "degradation_right", **of_all).to_dict("records")
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx((low, high))
    assert low < 0.8 < high <= 1
    confusion = trial.confusion_data_frame()
    assert value(confusion, "predicted_fraction", degradation="b", predicted_degradation="b") == 0.5
    head, cells = text_table(confusion)
    assert head == ["input", *(f"taken for {label}, %" for label in ("a-1", "a-2", "b"))]
    assert cells[1] == ["a-2", "0.0", "100.0", "0.0"]
    head, cells = text_table(accuracy)
    assert cells[0][head.index("degradation right, %")] == "80.0 (37.6 to 96.4)"


def test_scores_are_those_against_the_targets_own_output(study_parts, tmp_path):  # noqa: F811
    nets, _, kept, _ = study_parts
    x = kept.lq["blur"]
    shares = own_output_scores(*nets, x, steps=2, finished_parts=FinishedParts(tmp_path, {}))
    expected = faigfast.attribute(*nets, (x, restore(nets[1], x)), steps=2).scores().double()
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(shares, expected, rtol=1e-4, atol=1e-9)
    kept_parts = list((tmp_path / "parts").glob("own*"))
    assert len(kept_parts) == 2  # of nine crops
    assert torch.equal(
        own_output_scores(*nets, x, steps=2, finished_parts=FinishedParts(tmp_path, {})), shares
    )


def test_images_are_predicted_from_learnt_ones(study_parts):  # noqa: F811
    nets, *_ = study_parts
    images = photographs()
    data = crops(images, RECIPES, 24)
    signatures = learn(*nets, data, steps=2)
    assert signatures.labels == tuple(RECIPES) and signatures.examples[0].shape[0] == 12
    predictions = predict_degradation(
        *nets, signatures, data.lq["noise"][:2], steps=2, match="neighbour"
    )
    assert [p.label for p in predictions] == ["noise", "noise"]
    out = leave_one_photograph_out(signatures, data.photographs, "correlation")
    assert len(out.truth) == 36 and set(out.photographs) == {"one", "two"}
    keep = [name != "two" for name in data.photographs]
    left = signatures.only(dict.fromkeys(RECIPES, keep))
    rows = {name: signatures.examples[n][6:] for n, name in enumerate(RECIPES)}
    assert predict_labelled(left, rows, ["two"] * 6, "correlation").predicted == out.predicted[18:]


def test_crops_are_spread():
    data = crops(photographs(), RECIPES, 24)
    some = evenly_spaced(data, 5)
    assert len(some.names) == 5 and set(some.photographs) == {"one", "two"}
    assert torch.equal(some.lq["blur"][1], data.lq["blur"][data.names.index(some.names[1])])
    assert evenly_spaced(data, 100) is data


def test_refused(study_parts):  # noqa: F811
    labels, rows = made_up()
    signatures = Signatures(labels, rows)
    with pytest.raises(ValueError, match="match is 'nearest'"):
        signatures.matches(rows[0], "nearest")
    with pytest.raises(ValueError, match="expected \\[N, 200\\]"):
        signatures.matches(rows[0][:, :9])
    with pytest.raises(ValueError, match="1 labels for 1"):
        Signatures(labels[:1], rows[:1])
    with pytest.raises(ValueError, match="examples of 'clean' are \\[0, 200\\]"):
        Signatures(labels, (rows[0][:0], *rows[1:]))
    with pytest.raises(ValueError, match="fraction is 0"):
        Signatures(labels, rows, fraction=0)
    with pytest.raises(ValueError, match="one photograph"):
        leave_one_photograph_out(signatures, ["a"] * 6, "overlap")
    nets, _, kept, _ = study_parts
    with pytest.raises(ValueError, match="signatures are of 200 filters and the network has"):
        predict_degradation(*nets, signatures, kept.lq["blur"])


def test_one_example_a_label_is_told_by_its_filters():
    """One example shows no spread within its label, so all filters have equal weight."""
    examples = tuple(torch.tensor([row]).double() for row in ([3, 1, 1, 1], [1, 1, 1, 3]))
    signatures = Signatures(("a", "b"), examples, fraction=0.25)
    assert signatures.within_label_deviation.tolist() == [1, 1, 1, 1]
    assert signatures.centres.isfinite().all()
    assert signatures.sets.tolist() == [[True, False, False, False], [False, False, False, True]]
