"""Kernels compiled without a GPU: their instructions, registers and memory."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from faigfast.kernels.launch import Launch

TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
MATRIX = ("wgmma.mma_async", "mma.sync")


@dataclass(frozen=True)
class Compiled:
    """Result of compiling one launch.

    Attributes
    ----------
    instructions : dict of str to int
        Number of each matrix instruction in the PTX.
    registers : int
        Registers of one thread.
    shared : int
        Bytes of shared memory of one program, dynamic ones included.
    local : int
        Bytes of local memory of one thread: spills and stack.
    """

    instructions: dict[str, int]
    registers: int
    shared: int
    local: int


def compiled(launch: Launch, capability: int) -> Compiled:
    """Compile a launch for sm_80, sm_90, …; no device is needed, and none is used.

    Parameters
    ----------
    launch : Launch
        Its tensors' values do not matter; they are taken to begin at multiples of 16 bytes.
    capability : int
        Compute capability: 80, 90, …

    Raises
    ------
    RuntimeError
        If the result cannot be read.
    """
    source = _source(launch)
    target = GPUTarget("cuda", capability, 32)
    kernel = triton.compile(source, target=target, options=launch.options)
    ptx = kernel.asm["ptx"]
    usage = _usage(kernel.asm["cubin"], launch.name)
    counted = Counter({name: ptx.count(name) for name in MATRIX})
    return Compiled(dict(+counted), usage["REG"], kernel.metadata.shared, usage["local"])


def _source(launch: Launch) -> ASTSource:
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.arguments[name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(launch.kernel, signature, constants, attributes)


def _usage(cubin: bytes, name: str) -> dict[str, int]:
    """Read the resources of a kernel by cuobjdump from Triton's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        answer = subprocess.run(
            [tool, "--dump-resource-usage", str(file)], capture_output=True, text=True, check=True
        ).stdout
    block = answer.partition(f"Function {name}")[2]
    numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", block)}
    if "REG" not in numbers:
        raise RuntimeError(f"cuobjdump says nothing of {name}: {answer!r}")
    return {**numbers, "local": numbers.get("STACK", 0) + numbers.get("LOCAL", 0)}
