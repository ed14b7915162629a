"""Photographs, arguments and tables for the tests of the analysis commands."""

import json

import pytest
import torch
from cases.tables import check_files

from faigfast.data import write_image


@pytest.fixture(scope="module", autouse=True)
def photographs(files):
    """Two photographs of six crops of 24×24, and two to learn from."""
    generator = torch.Generator().manual_seed(5)
    for folder in ("photos", "others"):
        for name in ("first", "second"):
            image = torch.rand(3, 48, 72, generator=generator)
            write_image(files / folder / f"{name}.png", image)


def words(command, output, *more):
    base = [command, "a.pth", "b.safetensors", "--gt", "photos", "--output", str(output)]
    return [*base, "--crop", "24", "--steps", "2", "--quiet", *more]


def table(output, name):
    return check_files(output / name)


def finished(output, command):
    content = json.loads((output / f"{command}.json").read_text())
    assert content["command"].startswith(f"faigfast {command} a.pth")
    assert all((output / name).stat().st_size for name in content["files"])
    return content
