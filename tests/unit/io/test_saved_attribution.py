import json

import pytest
import torch
from cases.attributions import TWO, equal, made
from safetensors.torch import save_file

from faigfast import Attribution, attribute
from faigfast.analysis import baselines
from faigfast.backend import catalogue
from faigfast.integration.settings import BACKENDS, METHODS, WEIGHT_METHODS


def test_save_and_load(tmp_path):
    result = made(TWO, [True, False, True, True], notes=("fell back: no GPU", "é — ✓"))
    result.save(tmp_path / "sub" / "result.safetensors")
    again = Attribution.load(str(tmp_path / "sub" / "result.safetensors"))
    assert equal(again, result)
    assert again.top("blur", 0.5).indices.tolist() == result.top("blur", 0.5).indices.tolist()
    assert again.index.locate(3) == result.index.locate(3)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["result.safetensors"]


@pytest.mark.parametrize("names", [("lq",), ("blur", "noise", "scores.0"), ("a b/ü", "")])
def test_save_and_load_of_a_computed_result(tmp_path, names):
    a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    x = {name: torch.rand(2, 3, 5, 5) for name in names}
    result = attribute(a, b, {"lq": x, "gt": torch.rand(2, 3, 5, 5)}, rule="gauss-kronrod", steps=3)
    result.save(tmp_path / "r.safetensors")
    assert equal(Attribution.load(tmp_path / "r.safetensors"), result)
    result.merge(result).save(tmp_path / "r.safetensors")
    assert Attribution.load(tmp_path / "r.safetensors").images == 4


def test_files_that_are_not_attributions(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors is not a file"):
        Attribution.load(path)
    with pytest.raises(FileNotFoundError):
        Attribution.load(tmp_path)
    made(TWO).save(path)
    saved = path.read_bytes()
    weights = {"weight": torch.zeros(2)}
    cases = [b"", b"text", b"\0" * 100, saved[:8], saved[:200], saved[:-1], saved[:-20] + b"x" * 40]
    for case in cases:
        path.write_bytes(case)
        with pytest.raises(ValueError, match=r"x\.safetensors is"):
            Attribution.load(path)
    for metadata in (None, {"format": "pt"}, {"format": json.dumps("other 1")}, {"a": "{"}):
        save_file(weights, path, metadata)
        with pytest.raises(ValueError, match=r"x\.safetensors is"):
            Attribution.load(path)


@pytest.mark.parametrize("missing", ["degradations", "layers", "shapes", "setting", "notes"])
@pytest.mark.parametrize("value", ["missing", None, 3])
def test_metadata_that_is_not_an_attributions(missing, value):
    tensors, metadata = made(TWO).to_tensors()
    metadata[missing] = value
    if value == "missing":
        del metadata[missing]
    with pytest.raises(ValueError):
        Attribution.from_tensors(tensors, metadata)


METADATA = [
    {"degradations": "ab"}, {"degradations": [["a"], ["b"]]}, {"degradations": ["a", "a"]},
    {"degradations": [str(n) for n in range(10**6)]}, {"layers": "ab"}, {"layers": None},
    {"layers": ["a", "a"]}, {"layers": [], "shapes": []}, {"notes": "abc"}, {"shapes": "ab"},
    {"shapes": [[1, 2, True, True], [2, 1, 1, 1]]}, {"shapes": [[1, 2, 3.0], [2, 1, 1]]},
    {"format": [1]},
]  # fmt: skip


@pytest.mark.parametrize("changes", METADATA, ids=lambda changes: str(changes)[:30])
def test_metadata_that_save_cannot_write(changes):
    tensors, metadata = made(TWO).to_tensors()
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} (is|are|hold)"):
        Attribution.from_tensors(tensors, {**metadata, **changes})


def test_huge_shapes_are_refused():
    tensors, metadata = made(TWO).to_tensors()
    shapes = [[2**62, 2**62, 3, 3], [2, 1, 1, 1]]
    with pytest.raises(ValueError, match=r"scores\.0 is \[2, 4\], expected \[2, "):
        Attribution.from_tensors(tensors, {**metadata, "shapes": shapes})


@pytest.mark.parametrize(
    "name, value",
    [
        ("rule", "simpson"), ("rule", ["left"]), ("steps", 0), ("steps", True), ("tol", -1.0),
        ("tol", float("nan")), ("tol", float("inf")), ("backend", "quantum"),
        ("precision", "fp3"), ("method", "magic"), ("emulate", 1), ("seed", 1.5),
    ],
)  # fmt: skip
def test_settings_that_no_result_has(name, value):
    tensors, metadata = made(TWO).to_tensors()
    metadata["setting"][name] = value
    with pytest.raises(ValueError, match=f"setting {name} is "):
        Attribution.from_tensors(tensors, metadata)


@pytest.mark.parametrize("setting", ["midpoint", None, {}, {"a": 1}])
def test_settings_that_are_no_settings(setting):
    tensors, metadata = made(TWO).to_tensors()
    with pytest.raises(ValueError, match=r"^setting (is|has no|holds) .*; expected "):
        Attribution.from_tensors(tensors, {**metadata, "setting": setting})


def test_settings_know_all_methods_and_backends():
    assert set(METHODS) == set(baselines.METHODS)
    assert set(WEIGHT_METHODS) == set(baselines.WEIGHT_METHODS)
    assert BACKENDS == catalogue.NAMES


def with_first(number):
    def change(value):
        value = value.clone()
        value.view(-1)[0] = number
        return value

    return change


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("scores.0", with_first(-1), "scores.0 holds -1; expected no negative"),
        ("scores.0", torch.Tensor.double, "scores are of .*, expected one type"),
        ("scores.0", lambda v: v.to(torch.float8_e4m3fn), "scores.0 is of torch.float8_e4m3fn"),
        ("scores.0", lambda v: v[:1], r"scores.0 is \[1, 4\], expected \[2, 4\]"),
        ("completeness", with_first(-1), "completeness holds -1"),
        ("error", with_first(-1), "error holds -1"),
        ("losses", with_first(float("nan")), "losses holds values that are not finite"),
        ("losses", with_first(float("inf")), "losses holds values that are not finite"),
        ("losses", torch.Tensor.flatten, r"losses is \[8\], expected \[D, N, 2\]"),
        ("losses", torch.Tensor.sum, r"losses is \[\], expected \[D, N, 2\]"),
        ("points", with_first(0), "points holds 0; expected at least 1"),
        ("scored", torch.zeros_like, "scored selects no filter"),
    ],
)
def test_tensors_that_save_cannot_write(name, change, words):
    tensors, metadata = made(TWO).to_tensors()
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=words):
        Attribution.from_tensors(tensors, metadata)


def test_a_mean_has_one_row():
    tensors, metadata = made(TWO, per_image=False).to_tensors()
    with pytest.raises(ValueError, match=r"scores.0 is \[2, 4\], expected \[1, 4\]"):
        Attribution.from_tensors(tensors, metadata)


def test_signed_scores_may_be_negative(tmp_path):
    path = tmp_path / "r.safetensors"
    result = made({"lq": [[-1.0, 2.0, 0.0]]}, method="signed")
    result.save(path)
    assert equal(Attribution.load(path), result)


@pytest.mark.parametrize("name", ["scores.0", "completeness", "losses", "error", "scored"])
@pytest.mark.parametrize("change", ["missing", "shape"])
def test_tensors_that_are_not_an_attributions(name, change):
    tensors, metadata = made(TWO).to_tensors()
    tensors[name] = torch.zeros(7, 9)
    if change == "missing":
        del tensors[name]
    with pytest.raises(ValueError):
        Attribution.from_tensors(tensors, metadata)


def test_a_result_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in ("folder", "file/below.safetensors"):
        with pytest.raises((OSError, ValueError), match=path.split("/")[0]):
            made(TWO).save(tmp_path / path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize("path", [None, 3, b"x"])
def test_paths_that_are_no_paths(path):
    for call in (made(TWO).save, Attribution.load):
        with pytest.raises(TypeError, match=f"path is {path}; expected the name of a file"):
            call(path)


def test_an_interrupted_save_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "r.safetensors"
    made(TWO).save(path)
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("faigfast.io.tensor_file.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made({"lq": TWO["blur"]}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
