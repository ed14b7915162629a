"""Plant mistakes in the core, one at a time, and see that the tests notice each.

    .venv/bin/python scripts/mutations.py            all of them, some minutes
    .venv/bin/python scripts/mutations.py halo stale those whose names have one of these words

Every mistake is planted in a copy of the working tree; those in C++ are compiled there. A mistake
that its tests do not notice is printed, and is what the script ends with.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT_SUITE = "not (slow or build or interpreter)"
COMPILED = ("faigfast/*.so", "faigfast/_build_info.json")


@dataclass(frozen=True)
class Mutation:
    """A mistake: in a file, `right` stands once and becomes `wrong`; `tests` are to notice it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


MUTATIONS = [
    Mutation(
        "absolute value before the sum over points",
        "faigfast/engine/one_sample.py",
        "total.grad.add_(gradient)",
        "total.grad.add_(gradient.abs())",
        "tests/unit/engine/test_threads.py",
    ),
    Mutation(
        "no absolute value after the sum",
        "faigfast/ops/score_reduction.py",
        "return (delta * total).abs().flatten(3)",
        "return (delta * total).flatten(3)",
        "tests/unit/ops/test_score_reduction.py",
    ),
    Mutation(
        "weights of the nodes dropped",
        "faigfast/engine/losses.py",
        "(losses * factors[:, None]).sum().backward()",
        "losses.sum().backward()",
        "tests/unit/engine/test_models.py",
    ),
    Mutation(
        "last node dropped",
        "faigfast/engine/integrate.py",
        "starts = range(0, len(nodes), size)",
        "starts = range(0, len(nodes) - 1, size)",
        "tests/unit/engine/test_integrate.py",
    ),
    Mutation(
        "sums of one worker dropped",
        "faigfast/engine/integrate.py",
        "for given, _ in workers)",
        "for given, _ in workers[:1])",
        "tests/unit/engine/test_threads.py",
    ),
    Mutation(
        "a coarser rule's sum kept whole",
        "faigfast/engine/accumulator.py",
        "value.mul_(step.keep)",
        "value.mul_(1.0)",
        "tests/unit/engine/test_integrate.py",
    ),
    Mutation(
        "residual added twice",
        "faigfast/ops/conv/operation.py",
        "torch.add(residual[p % len(residual)], out,",
        "torch.add(2 * residual[p % len(residual)], out,",
        "tests/unit/ops/test_path_operations_conv.py",
    ),
    Mutation(
        "interpolation that stays at the target",
        "faigfast/ops/path_values.py",
        "torch.addcmul(w0, dw, alpha)",
        "torch.add(w0, dw)",
        "tests/unit/ops/test_path_values.py",
    ),
    Mutation(
        "difference of the networks the wrong way round",
        "faigfast/integration/path.py",
        "self.delta[key] = self.end[key] - start",
        "self.delta[key] = start - self.end[key]",
        "tests/unit/integration/test_path.py",
    ),
    Mutation(
        "stale plan",
        "faigfast/engine/graph.py",
        "if known is not None and known.state == state:",
        "if known is not None:",
        "tests/unit/engine/test_changed_networks.py",
    ),
    Mutation(
        "comparison that never finds a difference in gradients",
        "faigfast/engine/verify.py",
        "if not error <= bound * (size + bound * total):",
        "if error != error:",
        "tests/unit/engine/test_verify.py",
    ),
    Mutation(
        "long graph trusted without comparison",
        "faigfast/engine/integrate.py",
        "if number == 0 and check_first is not None:",
        "if number == -1 and check_first is not None:",
        "tests/unit/engine/test_verify.py",
    ),
    Mutation(
        "memory of one sample for a whole chunk",
        "faigfast/engine/memory.py",
        "MARGIN * (chunk.samples * values",
        "MARGIN * (values",
        "tests/unit/engine/test_memory.py",
    ),
    Mutation(
        "left rule from the baseline on",
        "faigfast/integration/quadrature.py",
        "Quadrature(1 - position / steps, equal)",
        "Quadrature(position / steps, equal)",
        "tests/unit/integration/test_quadrature.py",
    ),
    Mutation(
        "midpoints off the middle",
        "faigfast/integration/quadrature.py",
        "return Quadrature((position + 0.5) / steps, equal)",
        "return Quadrature((position + 0.6) / steps, equal)",
        "tests/unit/integration/test_quadrature.py",
    ),
    Mutation(
        "completeness against a sum of losses",
        "faigfast/attribution/computation.py",
        "change = losses[..., 1] - losses[..., 0]",
        "change = losses[..., 1] + losses[..., 0]",
        "tests/unit/attribution/test_attribute.py",
    ),
    Mutation(
        "contrast that adds",
        "faigfast/result.py",
        "mean = mean - torch.stack(",
        "mean = mean + torch.stack(",
        "tests/unit/test_result.py",
    ),
    Mutation(
        "one filter too many",
        "faigfast/result.py",
        "count = max(1, int(Fraction(str(fraction)) * len(self.index)))",
        "count = 1 + int(Fraction(str(fraction)) * len(self.index))",
        "tests/unit/test_result.py",
    ),
    Mutation(
        "masks turned round",
        "faigfast/filters/filter_set.py",
        "torch.lerp(start[layer].to(end[layer]), end[layer], float(strength))",
        "torch.lerp(end[layer], start[layer].to(end[layer]), float(strength))",
        "tests/unit/filters/test_filters.py",
    ),
    Mutation(
        "denormal numbers lost to the caller",
        "faigfast/backend/cpu/state.py",
        "        _extension.module.set_control_words(before)",
        "        pass",
        "tests/unit/attribution/test_undisturbed.py",
    ),
    Mutation(
        "halo of a patch off by one",
        "csrc/cpu/winograd/transform.h",
        "for (int r = 0; r < kPatch; ++r) x[r] = from(r, c);",
        "for (int r = 0; r < kPatch; ++r) x[r] = from(r ? r : 1, c);",
        "tests/unit/ops/test_cpu_conv.py",
    ),
    Mutation(
        "half a gradient of the loss",
        "csrc/cpu/squared_error.cpp",
        "broadcast(2 * weights[sample])",
        "broadcast(weights[sample])",
        "tests/unit/ops/test_cpu_squared_error.py",
    ),
    Mutation(
        "weight gradient of the wrong tap",
        "csrc/cpu/winograd/transform.h",
        "w[2] = (c - a) * (1.f / 6) + u[5];",
        "w[2] = (c - a) * (1.f / 6) + u[4];",
        "tests/unit/ops/test_cpu_conv.py",
    ),
]


def noticed(copy: Path, mutation: Mutation) -> bool:
    """Plant a mistake in a copy, run its tests, and take it out again."""
    file = copy / mutation.file
    before = file.read_text()
    if before.count(mutation.right) != 1:
        times = before.count(mutation.right)
        raise SystemExit(f"{mutation.name}: {mutation.right!r} stands {times} times in {file.name}")
    file.write_text(before.replace(mutation.right, mutation.wrong))
    try:
        if mutation.file.startswith("csrc/"):
            build(copy)
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        options = ("-x", "-q", "-p", "no:cacheprovider", "-m", SHORT_SUITE)
        command = [sys.executable, "-m", "pytest", *options]
        run = subprocess.run(
            [*command, mutation.tests], cwd=copy, env=environment, capture_output=True, text=True
        )
    finally:
        file.write_text(before)
    if run.returncode not in (0, 1):  # 1: a test failed
        raise SystemExit(f"{mutation.name}: pytest ended with\n{run.stdout}{run.stderr}")
    return run.returncode == 1


def build(copy: Path) -> None:
    """Compile the extension of a copy."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"],
        cwd=copy, check=True, env={**os.environ, "FAIGFAST_BUILD": "cpu"}, capture_output=True,
    )  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", help="of the names of mistakes; none: all")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    chosen.sort(key=lambda mutation: mutation.file.startswith("csrc/"))  # which stay compiled
    survivors = []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        compiled = [str(f.relative_to(ROOT)) for name in COMPILED for f in ROOT.glob(name)]
        for name in [*listed.stdout.split("\n"), *compiled]:
            if name and (ROOT / name).exists():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        for mutation in chosen:
            start = time.perf_counter()
            caught = noticed(copy, mutation)
            seconds = time.perf_counter() - start
            print(f"{'noticed' if caught else 'SURVIVED':9} {seconds:4.0f} s  {mutation.name}")
            survivors += [] if caught else [mutation.name]
    if survivors:
        raise SystemExit(f"not noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
