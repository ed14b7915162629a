"""The GPU script: what was built before, the staged package, and the stamp of its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases.fake_gpu import script

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))

from scripts.gpu import staging, stamp  # noqa: E402
from scripts.gpu.bodies import (  # noqa: E402
    build,
    conv64,
)
from scripts.gpu.items import ITEMS  # noqa: E402
from scripts.gpu.outcomes import NotRunError, StepFailedError  # noqa: E402

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_lines_of_the_program_are_results(tmp_path):
    def run(text):
        return conv64.run([str(script(tmp_path / "conv64", text))], 5)

    line = '{"name": "one tile", "right": true}'
    assert run(f"print({line!r})") == {"lines": [{"name": "one tile", "right": True}]}
    wrong = '{"name": "odd edges", "right": false}'
    with pytest.raises(StepFailedError, match="1 of 2 wrong: odd edges") as failure:
        run(f"print({line!r}); print({wrong!r}); raise SystemExit(1)")
    assert len(failure.value.figures["lines"]) == 2
    with pytest.raises(StepFailedError, match="exit status 2: cudaMalloc: out of memory"):
        run("print('cudaMalloc: out of memory'); raise SystemExit(2)")
    with pytest.raises(NotRunError, match=r"not of compute capability 9\.0"):
        run("raise SystemExit(77)")
    with pytest.raises(StepFailedError, match="1 s were over, after 1 lines"):
        text = f"import time; print({line!r}, flush=True); time.sleep(60)"
        conv64.run([str(script(tmp_path / "slow", text))], 1)


def test_a_carried_build_of_the_same_sources_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "place_module", lambda _: None)
    monkeypatch.setattr(build, "nvcc", lambda: "nvcc")
    made = []

    def compiled(path):
        made.append(path.name)
        path.write_text("built")

    def take(works=True):
        return build.made_or_carried("program", compiled, lambda _: works, tmp_path)

    assert take()["from"] == "built here" and made == ["program"]
    assert take()["from"] == "carried, or built before" and len(made) == 1
    with pytest.raises(build.BuildError, match="does not start here"):
        take(works=False)  # carried from a machine with other libraries, and built in vain
    assert len(made) == 2
    (tmp_path / "program.built.json").write_text('{"sources": "older"}')
    assert take()["from"] == "built here" and len(made) == 3
    (tmp_path / "program.built.json").unlink()
    monkeypatch.setattr(build, "nvcc", lambda: None)
    with pytest.raises(NotRunError, match="nvcc was not"):
        take()


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    script(tmp_path / "nvcc", "print('a.cu(3): error: no such thing'); raise SystemExit(1)")
    monkeypatch.setenv("CUDA_HOME", "")
    monkeypatch.setenv("CUDA_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"a\.cu\(3\): error: no such thing"):
        build.build_program(tmp_path / "conv64")


def test_the_staged_package_is_what_items_import(tmp_path):
    site = staging.stage(tmp_path)
    text = "import faigfast.kernels; print(faigfast.__file__, faigfast.kernels.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path,
        env=staging.environment(tmp_path),
    )  # fmt: skip
    assert all(path.startswith(str(site)) for path in run.stdout.split()), run.stderr
    info = json.loads((site / "faigfast" / "_build_info.json").read_text())
    assert info["cuda"]["reason"] == "scripts.gpu did not build it; see the item build"
    (tmp_path / staging.MODULE).touch()
    sources = {"sources": "of an older build"}
    staging.record_of(staging.MODULE, tmp_path).write_text(json.dumps(sources))
    staging.place_module(tmp_path)
    assert not (site / "faigfast" / staging.MODULE).exists()
    sources["sources"] = ITEMS["build"].sources_hash()
    staging.record_of(staging.MODULE, tmp_path).write_text(json.dumps(sources))
    staging.place_module(tmp_path)
    info = json.loads((site / "faigfast" / "_build_info.json").read_text())
    assert info["cuda"] == {"extension": True, "reason": None}
    assert (site / "faigfast" / staging.MODULE).exists()


@no_gpu
def test_the_stamp_says_why_there_is_no_gpu(monkeypatch):
    with pytest.raises(stamp.NoGpuError, match=r"is built without CUDA|there is no device"):
        stamp.make_stamp(staging.environment())
    monkeypatch.setattr(stamp, "DESCRIBE", (sys.executable, "-c", "raise OSError('libcuda')"))
    with pytest.raises(stamp.NoGpuError, match="torch does not load: OSError: libcuda"):
        stamp.make_stamp(dict(os.environ))
    monkeypatch.setattr(stamp, "DESCRIBE", (sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(stamp.NoGpuError, match="did not load in 0 s"):
        stamp.make_stamp(dict(os.environ), 0.2)


def test_the_commit_names_changed_trees(tmp_path, monkeypatch):
    def git(*words):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *name, *words], check=True, capture_output=True)

    monkeypatch.delenv("FAIGFAST_COMMIT", raising=False)
    assert stamp.commit(tmp_path) == "unknown"
    git("init")
    git("commit", "--allow-empty", "-m", "a")
    clean = stamp.commit(tmp_path)
    assert len(clean) >= 7
    (tmp_path / "new").touch()
    assert stamp.commit(tmp_path) == f"{clean}+"
    monkeypatch.setenv("FAIGFAST_COMMIT", "abc1234")
    assert stamp.commit(tmp_path) == "abc1234"


# What a machine with torch, triton, numpy, safetensors, tqdm and pytest lacks.
ABSENT = (
    "PIL", "hypothesis", "ignite", "jinja2", "jsonargparse", "matplotlib", "pandas", "pyarrow",
    "pybind11", "ray", "scipy", "setuptools", "skimage", "sklearn", "spandrel", "yaml",
)  # fmt: skip
LACKING = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT!r})
from scripts.gpu.bodies import whole_calls, end_to_end, paper_experiment, one_shape, layer_table
from scripts.gpu.bodies import build, conv64, ceilings, sanitizers, device_tests
print(whole_calls.measure("torch", "fp32", "tiny-8x1", device="cpu", points=1)["overlap"])
"""


def test_nothing_but_torch_triton_numpy_and_pytest_is_needed(tmp_path):
    run = subprocess.run([sys.executable, "-c", LACKING], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "1.0\n", run.stderr
