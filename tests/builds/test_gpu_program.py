"""What `scripts.gpu` builds for a card compiles here, without one."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))

from scripts.gpu.bodies import build, conv64
from scripts.gpu.outcomes import NotRunError, StepFailedError
from scripts.gpu.staging import MODULE

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(build.nvcc() is None, reason="nvcc was not found"),
]
SECONDS = 600  # the tests share the cores


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "conv64"
    build.build_program(path, SECONDS)
    return path


def test_the_program_starts(program):
    assert build.starts(program)
    (line,) = conv64.run([str(program), "version"], 10)["lines"]
    assert line["version"] >= 12050


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("part", [*conv64.PARTS, "small"])
def test_without_a_card_the_program_says_so(program, part):
    with pytest.raises((StepFailedError, NotRunError), match=r"there is no device|capability"):
        conv64.run([str(program), part], 10)


def test_the_check_and_the_convolution_are_in_the_program(program):
    code = program.read_bytes()
    assert all(kernel in code for kernel in (b"one_product", b"convolution64", b"compare"))


def test_the_extension_loads(tmp_path):
    path = tmp_path / MODULE
    build.build_extension(path, seconds=SECONDS)
    assert build.loads(path)
