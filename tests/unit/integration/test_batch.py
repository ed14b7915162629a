"""Every accepted form of the images."""

import pytest
import torch
from cases.networks import images, kinked, pair, same
from torch import nn
from torch.utils.data import DataLoader

from faigfast import attribute


def test_all_spellings_of_one_degradation_agree():
    baseline, target = pair(kinked)
    x, gt = images()
    expected = attribute(baseline, target, (x, gt))
    for batch in (
        [x, gt],
        {"lq": x, "gt": gt},
        {"lq": x, "gt": gt, "lq_path": ["a.png"], "index": torch.arange(2)},
        {"lq": {"lq": x}, "gt": {"lq": gt, "other": None}},
        [(x, gt)],
        iter([{"lq": x, "gt": gt}]),
        ((x, gt),),
    ):
        assert same(attribute(baseline, target, batch), expected)


def test_several_degradations_equal_separate_calls_to_the_bit():
    baseline, target = pair(kinked)
    (blur, gt), (noise, other) = images(), images(seed=1)
    together = attribute(baseline, target, {"lq": {"blur": blur, "noise": noise}, "gt": gt})
    assert together.degradations == ("blur", "noise")
    for i, (name, x) in enumerate((("blur", blur), ("noise", noise))):
        alone = attribute(baseline, target, (x, gt))
        assert torch.equal(together.scores(name), alone.scores())
        assert torch.equal(together.losses[i], alone.losses[0])
        assert torch.equal(together.completeness[i], alone.completeness[0])
    own = attribute(
        baseline, target, {"lq": {"blur": blur, "noise": noise}, "gt": {"noise": other, "blur": gt}}
    )
    assert torch.equal(own.scores("blur"), together.scores("blur"))
    assert torch.equal(own.scores("noise"), attribute(baseline, target, (noise, other)).scores())


def test_degradations_of_different_sizes_in_one_call():
    baseline, target = pair(kinked)
    (blur, gt), (noise, other) = images(), images(seed=1, size=(3, 4))
    result = attribute(
        baseline, target, {"lq": {"b": blur, "n": noise}, "gt": {"b": gt, "n": other}}
    )
    assert torch.equal(result.scores("n"), attribute(baseline, target, (noise, other)).scores())


def test_iterables_of_mixed_sizes_merge_in_order():
    baseline, target = pair(kinked)
    parts = [images(2), images(1, size=(4, 9), seed=1), images(3, size=(1, 1), seed=2)]
    separate = [attribute(baseline, target, part) for part in parts]
    for form in (parts, tuple(parts), iter(parts), (part for part in parts)):
        result = attribute(baseline, target, form)
        assert torch.equal(result.scores(), torch.cat([part.scores() for part in separate]))
        assert torch.equal(result.losses, torch.cat([part.losses for part in separate], 1))
        assert result.images == 6
    assert same(separate[0].merge(separate[1:]), result)


def test_two_batches_are_not_taken_for_x_and_gt():
    baseline, target = pair(kinked)
    parts = [images(1), images(1, seed=1)]
    assert attribute(baseline, target, parts).images == 2
    assert attribute(baseline, target, tuple(parts)).images == 2


def test_degradations_may_come_in_any_order():
    baseline, target = pair(kinked)
    x, gt = images()
    y = x.flip(3)
    result = attribute(
        baseline,
        target,
        [{"lq": {"a": x, "b": y}, "gt": gt}, {"lq": {"b": y, "a": x}, "gt": gt}],
    )
    assert torch.equal(result.scores("a")[:2], result.scores("a")[2:])
    assert torch.equal(result.scores("b")[:2], result.scores("b")[2:])
    assert torch.equal(result.losses[:, :2], result.losses[:, 2:])


class Folder(torch.utils.data.Dataset):
    def __init__(self, mapping):
        self.x, self.gt = images(5)
        self.mapping = mapping

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if self.mapping:
            return {
                "lq": {"blur": self.x[i], "noise": -self.x[i]},
                "gt": self.gt[i],
                "name": str(i),
            }
        return self.x[i], self.gt[i]


@pytest.mark.parametrize("mapping", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_data_loader(mapping, size):
    baseline, target = pair(kinked)
    data = Folder(mapping)
    loader = DataLoader(data, batch_size=size)
    result = attribute(baseline, target, loader)
    name = result.degradations[0]
    assert torch.equal(result.scores(name), attribute(baseline, target, (data.x, data.gt)).scores())
    assert result.images == 5


def test_gt_need_not_be_an_image():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.dense = nn.Conv2d(1, 2, 3), nn.Linear(2, 3)

        def forward(self, x):
            return self.dense(torch.tanh(self.conv(x)).mean((2, 3)))

    baseline, target = pair(Classifier)
    gt = images(2, 3, ())[1]
    result = attribute(baseline, target, (images(2, 1)[0], gt), rule="gauss-legendre")
    assert result.scores().shape == (2, 2) and result.completeness.max() < 1e-5


def test_names_of_images_are_those_in_messages():
    baseline, target = pair(kinked)
    x, gt = images()
    short = gt[..., 1:]
    batch = {"lq": x, "gt": short, "name": ["first", "second"]}
    with pytest.raises(ValueError, match=r"degradation 'lq', image 'first': gt does not fit"):
        attribute(baseline, target, [batch])
    for names in (["first"], "ab", [1, 2], None):  # of something else
        with pytest.raises(ValueError, match=r"degradation 'lq', image 0: gt does not fit"):
            attribute(baseline, target, {**batch, "name": names})
    with pytest.raises(ValueError, match=r"cpu: degradation 'lq', image 'first': gt does"):
        attribute(baseline, target, batch, devices=["cpu"])
