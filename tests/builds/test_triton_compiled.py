"""The Triton kernels compiled for absent cards: they use matrix instructions and never spill."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from faigfast.backend.gpu import triton_support as _triton

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(
        bool(_triton.missing()), reason=f"the kernels were not compiled: {_triton.missing()}"
    ),
]
MODES = ("fp16", "bf16", "tf32", "bf16x3")
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async"}
SHARED = {80: 163, 90: 227}  # KB of shared memory per program
# Consumer cards (sm_86, sm_89, sm_120) take the code of sm_80 and have 99 KB: first tiles must fit.
FIRST = {80: 99, 90: 227}
WORKERS = 2


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def shapes_in(mode):
    """Layer shapes to compile. bf16 differs from fp16 only in the type, so one is enough."""
    from cases import triton_layers as cases

    if mode == "bf16":
        return [cases.BODY]
    return [*(cases.SHAPES if mode == "fp16" else [cases.BODY]), *cases.VARIANTS]


def tasks():
    """(mode, layer, all tiles?, capability); mode "" stands for the kernels without a product."""
    for capability in MATRIX:
        for mode in MODES:
            for shape in shapes_in(mode):
                yield mode, shape.name, mode == "fp16" and shape == shapes_in(mode)[0], capability
        yield "", "", False, capability


def compiled(task):
    """Compile in a process of its own and describe each kernel's problem, "" if it has none."""
    from cases import triton_aot as aot
    from cases import triton_layers as cases

    mode, name, every, capability = task
    if not mode:
        return [wrong(case, aot.compiled(case.launch, capability), capability, True)
                for case in cases.others()]  # fmt: skip
    shape = next(shape for shape in shapes_in(mode) if shape.name == name)
    problems, seen = [], set()
    for case in cases.every_tile(mode, shape) if every else cases.first_tiles(mode, shape):
        made, kernel = aot.compiled(case.launch, capability), case.launch.name
        problems.append(wrong(case, made, capability, kernel not in seen))
        seen.add(kernel)
    assert len(seen) == 3
    return problems


def wrong(case, made, capability, first):
    most = (FIRST if first else SHARED)[capability]
    fits = made.local == 0 and 0 < made.registers <= 255 and made.shared <= 1024 * most
    rows = case.launch.constants.get("M", 0)
    if not rows:
        multiplies = not made.instructions
    elif rows >= 64:  # wgmma needs 64 rows
        multiplies = bool(made.instructions.get(MATRIX[capability]))
    else:
        multiplies = bool(made.instructions)
    fits = fits and not narrow_loads(case, made)
    said = f"{case.launch.name} {case.mode} {case.shape} sm_{capability}: {made}"
    return "" if fits and multiplies else said


def narrow_loads(case, made):
    """Loads of less than 16 bytes in the main loop, or 4 in float32, if the channels fill them.

    mma.sync takes no transposed tiles of 32 bits, so that these come number by number.
    """
    arguments = case.launch.arguments
    if arguments.get("C", 1) % 8 or arguments.get("O", 1) % 8:
        return []
    if case.mode in ("fp16", "bf16"):
        return [name for name in made.loads if not name.endswith(".128")]
    return [name for name in made.loads if name.endswith(("8", "16")) and ".128" not in name]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All compilations, on two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(WORKERS, context) as pool:
            yield {task: pool.submit(compiled, task) for task in tasks()}
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("capability", MATRIX)
@pytest.mark.parametrize("mode", [*MODES, ""])
def test_every_kernel(mode, capability, results):
    """Every precision on every layer. Mode "" covers the kernels without a matrix product."""
    problems = [line for task, result in results.items()
             if task[0] == mode and task[3] == capability for line in result.result()]  # fmt: skip
    assert len(problems) >= (3 if mode == "bf16" else 15)
    assert not any(problems), "\n".join(filter(None, problems))


def test_a_spill_would_be_seen():
    from cases import triton_aot as aot
    from cases import triton_layers as cases

    case = cases.first_tiles("fp16", cases.BODY)[0]
    few = replace(case.launch.tiles[0], registers=40)
    made = aot.compiled(replace(case.launch, tiles=(few,)), 80)
    assert made.local > 0 and wrong(case, made, 80, True)


def test_a_narrow_load_would_be_seen():
    """Without the alignment of its weights a kernel loads them two bytes at a time."""
    from cases import triton_aot as aot
    from cases import triton_layers as cases

    case = cases.first_tiles("fp16", cases.BODY)[0]
    assert set(aot.compiled(case.launch, 90).loads) == {"LDGSTS.E.BYPASS.128"}
    made = aot.compiled(case.launch, 90, unaligned=["w"])
    assert made.loads["LDG.E.U16"] and wrong(case, made, 90, True)


def test_what_triton_tunes(monkeypatch):
    """Every candidate is a configuration of its own; Triton refuses a key that is no argument."""
    from cases import triton_layers as cases

    from faigfast.kernels.launch import tuned

    for case in cases.first_tiles("fp16", cases.BODY):
        candidates = [c.launch.tiles[0] for c in cases.every_tile("fp16", cases.BODY)
                      if c.launch.name == case.launch.name]  # fmt: skip
        tuner = tuned(case.launch.kernel, tuple(candidates))
        assert len({str(config) for config in tuner.configs}) == len(candidates) > 1
        assert tuner.cache_results and len(tuner.keys) == len(set(tuner.keys)) > 8
