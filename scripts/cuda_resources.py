#!/usr/bin/env python3
"""Compile the CUDA kernels and tell what each takes of a card, without one.

Prints a table of Markdown: registers, shared memory, spills and matrix instructions of every kernel
for every target. Needs nvcc; the instructions are read from machine code where cuobjdump is found
(beside nvcc, on the path, or in Triton's package), else from PTX.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
TARGETS = {"sm_90a": "compute_90a"}
# What must be in the Hopper kernel's code: tensor cores, and tiles by the copy engine.
IN_SASS = ("HGMMA", "UTMALDG", "UTMASTG", "STSM", "USETMAXREG")
IN_PTX = ("wgmma.mma_async", "cp.async.bulk.tensor", "stmatrix", "setmaxnreg")


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel for one target, in bytes but for the registers."""

    file: str
    name: str
    target: str
    registers: int
    shared: int
    stack: int
    spills: int


def nvcc() -> str | None:
    """Path of nvcc, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return (home and shutil.which("nvcc", path=os.path.join(home, "bin"))) or shutil.which("nvcc")


def cuobjdump() -> str | None:
    """Path of cuobjdump, or None."""
    on_path = shutil.which("cuobjdump")
    beside = Path(os.path.realpath(nvcc() or "")).with_name("cuobjdump")
    spec = find_spec("triton")
    triton = Path(spec.origin or "").parent / "backends/nvidia/bin/cuobjdump" if spec else beside
    places = (on_path, beside, triton)
    return next((str(place) for place in places if place and os.access(place, os.X_OK)), None)


def compile_all(folder: Path) -> dict[tuple[str, str], str]:
    """Compile every file for its targets; gives what ptxas says by file and target."""
    tasks = [(source.stem, target) for source in sorted(CSRC.glob("*.cu")) for target in TARGETS]

    def compile_one(task: tuple[str, str]) -> str:
        name, target = task
        return run(
            str(nvcc()), "-O3", "-std=c++17", "-Xptxas=-v", "-cubin",
            f"-gencode=arch={TARGETS[target]},code={target}", str(CSRC / f"{name}.cu"),
            "-o", str(folder / f"{name}.{target}.cubin"),
        )  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(tasks, pool.map(compile_one, tasks), strict=True))


def run(*command: str) -> str:
    """Run a command; give all it says, or fail with that."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def kernels(reports: dict[tuple[str, str], str]) -> list[Kernel]:
    """Read the reports of ptxas."""
    every = []
    for (file, target), text in reports.items():
        for part in text.split("Compiling entry function '")[1:]:
            spills = [int(n) for n in re.findall(r"(\d+) bytes spill", part)]
            every.append(
                Kernel(
                    file,
                    readable(part.partition("'")[0]),
                    target,
                    registers=_number(r"Used (\d+) registers", part),
                    shared=_number(r"(\d+) bytes smem", part),
                    stack=_number(r"(\d+) bytes stack frame", part),
                    spills=sum(spills),
                )
            )
    return every


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def readable(mangled: str) -> str:
    """Shorten a mangled name to the kernel's own, with its template arguments where c++filt is."""
    tool = shutil.which("c++filt")
    name = run(tool, mangled).strip() if tool else mangled
    for left_out in ("(anonymous namespace)::", "faigfast::cuda::", "void ", "(int)", "(bool)"):
        name = name.replace(left_out, "")
    name = name.partition("(")[0].replace("_kernel", "")
    return name.replace("__nv_bfloat16", "bf16").replace("__half", "half")


def instructions(folder: Path) -> tuple[dict[str, int], str]:
    """How often each instruction of Hopper is in the Hopper kernel, and where that was read."""
    tool = cuobjdump()
    if tool:
        text = run(tool, "--dump-sass", str(folder / "convolution64.sm_90a.cubin"))
        return {name: len(re.findall(rf"\b{name}", text)) for name in IN_SASS}, "machine code"
    path = folder / "convolution64.ptx"
    run(
        str(nvcc()), "-O3", "-std=c++17", "-ptx", "-arch=compute_90a",
        str(CSRC / "convolution64.cu"), "-o", str(path),
    )  # fmt: skip
    text = path.read_text()
    return {name: text.count(name) for name in IN_PTX}, "PTX"


def main() -> None:
    """Print the table."""
    if nvcc() is None:
        sys.exit("nvcc was not found, neither in CUDA_HOME nor on the path")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled = kernels(compile_all(folder))
        counts, where = instructions(folder)
    print("| kernel | registers, sm_80 | sm_90a | static shared memory | stack | spills |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    rows: dict[str, list[Kernel]] = {}
    for kernel in compiled:
        rows.setdefault(kernel.name, []).append(kernel)
    for name, row in sorted(rows.items()):
        registers = {kernel.target: str(kernel.registers) for kernel in row}
        worst = [max(getattr(k, part) for k in row) for part in ("shared", "stack", "spills")]
        cells = [registers.get(target, "–") for target in TARGETS] + list(map(str, worst))
        print(f"| `{name}` | {' | '.join(cells)} |")
    print(f"\nIn the {where} of `convolution64`, both types: ", end="")
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + ".")


if __name__ == "__main__":
    main()
