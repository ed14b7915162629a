"""FilterSet as a set: members, places, operations, equality and its text."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from faigfast import FilterIndex, FilterSet

INDEX = FilterIndex(("a.weight", "b.weight"), ((2, 3, 3, 3), (4, 1, 1, 1)))  # 6 and 4 filters


def of(*flat, **known):
    return FilterSet(torch.tensor(flat, dtype=torch.int64), filter_index=INDEX, **known)


def test_a_set_gives_its_filters_in_order():
    filters = of(9, 4, 0)
    assert list(filters) == [("b.weight", 3, 0), ("a.weight", 1, 1), ("a.weight", 0, 0)]
    assert filters[1] == filters[-2] == ("a.weight", 1, 1)
    assert filters[torch.tensor(2)] == ("a.weight", 0, 0)
    assert filters[::-1].indices.tolist() == [0, 4, 9] and filters[1:].filter_index is INDEX
    assert (filters.total, filters.index) == (10, INDEX.fingerprint)
    for place in (3, -4):
        with pytest.raises(IndexError, match="is outside a set of 3 filters"):
            filters[place]
    for place in ("a.weight", 1.5, True, None):
        with pytest.raises(TypeError, match="cut by an integer or a slice"):
            filters[place]


def test_members_are_triples_or_flat_indices():
    filters = of(9, 4)
    assert 9 in filters and 0 not in filters and torch.tensor(4) in filters
    assert ("a.weight", 1, 1) in filters and ("a.weight", 0, 0) not in filters
    assert ("c.weight", 1, 1) not in filters
    assert ("a.weight", 0, 4) not in filters, "columns do not run over into the next row"
    for wrong in ("a.weight", ("a.weight", 1), 1.0, True, None):
        with pytest.raises(TypeError, match=r"expected \(layer, out, in\) or a flat index"):
            assert wrong in filters


def test_operations_keep_the_order_of_the_left_set():
    a, b = of(9, 4, 0, 2), of(2, 7, 9, 5)
    assert (a & b).indices.tolist() == [9, 2] and (b & a).indices.tolist() == [2, 9]
    assert (a | b).indices.tolist() == [9, 4, 0, 2, 7, 5]
    assert (a - b).indices.tolist() == [4, 0] and (b - a).indices.tolist() == [7, 5]
    assert (a & b).filter_index is INDEX


def test_operations_may_give_an_empty_set(tmp_path):
    nothing = of(1) & of(2)
    assert len(nothing) == 0 and not nothing and list(nothing) == [] and nothing == of(3)[:0]
    assert repr(nothing) == "FilterSet(0 of 10 filters)"
    assert (nothing | of(2)) == of(2) and nothing.to_frame().empty
    target = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(1, 4, 1))
    baseline = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(1, 4, 1))
    bare = replace(nothing, filter_index=None, index="")
    assert torch.equal(bare.swap(baseline, target)[0].weight, target[0].weight)
    with pytest.raises(ValueError, match="the set is empty; expected at least one"):
        nothing.save(tmp_path / "none.txt")


@pytest.mark.parametrize("operation", ["__and__", "__or__", "__sub__"])
def test_sets_of_different_networks_are_refused(operation):
    first = FilterSet([0], 10, "layers", "b", "c")
    for field, value in (("total", 9), ("index", "others"), ("baseline", "x"), ("target", "y")):
        with pytest.raises(ValueError, match=r"different networks: .* are .*; expected filters of"):
            getattr(first, operation)(replace(first, **{field: value}))
    unknown = FilterSet([0, 1])
    assert getattr(unknown, operation)(first).target == getattr(first, operation)(unknown).target


@pytest.mark.parametrize("other", [{1}, [1], None, 1])
def test_operations_take_sets_of_filters_alone(other):
    for combine in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a - b):
        with pytest.raises(TypeError, match="unsupported operand"):
            combine(of(1), other)
    assert of(1) != other


def test_equal_sets_hold_the_same_filters_in_any_order():
    assert of(9, 4) == of(4, 9) and hash(of(9, 4)) == hash(of(4, 9))
    assert of(9, 4) != of(9) and of(9, 4) != of(9, 5)
    assert of(9) == of(9, baseline="b", target="c"), "positions alone"
    assert of(9) != FilterSet([9]), "a set that does not know its network"
    assert len({of(9, 4), of(4, 9), of(1)}) == 2


def test_to_frame_has_a_row_a_filter():
    pytest.importorskip("pandas")
    frame = of(9, 4).to_frame()
    assert list(frame.columns) == ["flat", "layer", "out", "in"]
    assert frame.iloc[0].tolist() == [9, "b.weight", 3, 0]


def test_a_set_without_layers_says_how_to_get_them():
    bare = FilterSet([3, 1])
    for use in (list, lambda s: s[0], lambda s: ("a.weight", 0, 0) in s, FilterSet.to_frame):
        with pytest.raises(ValueError, match=r"does not know the layers.*filter_index=FilterIndex"):
            use(bare)
    assert 3 in bare and repr(bare) == "FilterSet(2 of F filters: 3, 1)"


def test_repr_names_layers_and_the_first_filters():
    assert repr(of(9, 4, 0, 2, 1, 3)) == (
        "FilterSet(6 of 10 filters in a (5), b (1): 9, 4, 0, 2, 1, …)"
    )
    many = FilterIndex(tuple("vwxyz"), ((1, 1, 1),) * 5)
    text = repr(FilterSet(range(5), filter_index=many))
    assert "in v (1), w (1), x (1), 2 other layers (2):" in text


def test_a_filter_index_of_another_network_is_refused():
    for known in ({"total": 9}, {"index": "other"}):
        with pytest.raises(ValueError, match=r"filter_index is of the network .* with 10 filters"):
            FilterSet([0], filter_index=INDEX, **known)
    with pytest.raises(TypeError, match="filter_index is a str; expected a FilterIndex"):
        FilterSet([0], filter_index="a.weight")


def test_a_file_lists_the_layers(tmp_path):
    index = FilterIndex(('odd "name"\n# layer', "b"), INDEX.shapes)
    filters = FilterSet([9, 4], filter_index=index, baseline="ab", target="cd")
    filters.save(tmp_path / "set.txt")
    again = FilterSet.load(tmp_path / "set.txt")
    assert again == filters and list(again) == list(filters) and again.filter_index == index
    text = (tmp_path / "set.txt").read_text()
    (tmp_path / "other.txt").write_text(text.replace("2x3x3x3", "3x2x3x3"))
    with pytest.raises(ValueError, match=r"other\.txt: filter_index is of the network"):
        FilterSet.load(tmp_path / "other.txt")


def test_layers_of_an_authors_file_are_given(tmp_path):
    (tmp_path / "theirs.txt").write_text("9\n4\n")
    filters = FilterSet.load(tmp_path / "theirs.txt", filter_index=INDEX)
    assert filters == of(4, 9) and filters[0] == ("b.weight", 3, 0)
    (tmp_path / "large.txt").write_text("10\n")
    with pytest.raises(ValueError, match=r"large.txt: indices run from 10 to 10"):
        FilterSet.load(tmp_path / "large.txt", filter_index=INDEX)
