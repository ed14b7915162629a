"""Kernels compiled without a GPU: their instructions, registers and memory."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection
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
    loads : dict of str to int
        Loads from global memory in the loop around the matrix instructions, by their machine code;
        LDGSTS copies to shared memory while the threads go on.
    """

    instructions: dict[str, int]
    registers: int
    shared: int
    local: int
    loads: dict[str, int]


def compiled(launch: Launch, capability: int, unaligned: Collection[str] = ()) -> Compiled:
    """Compile a launch for sm_80, sm_90, …; no device is needed, and none is used.

    Parameters
    ----------
    launch : Launch
        Its tensors' values do not matter; they are taken to begin at multiples of 16 bytes.
    capability : int
        Compute capability: 80, 90, …
    unaligned : collection of str
        Tensors that may begin anywhere.

    Raises
    ------
    RuntimeError
        If the result cannot be read.
    """
    source = _source(launch, unaligned)
    target = GPUTarget("cuda", capability, 32)
    kernel = triton.compile(source, target=target, options=launch.options)
    ptx = kernel.asm["ptx"]
    usage = _usage(_said_of(kernel.asm["cubin"], "--dump-resource-usage"), launch.name)
    loads = loop_loads(_said_of(kernel.asm["cubin"], "-sass"))
    counted = Counter({name: ptx.count(name) for name in MATRIX})
    return Compiled(dict(+counted), usage["REG"], kernel.metadata.shared, usage["local"], loads)


def _source(launch: Launch, unaligned: Collection[str]) -> ASTSource:
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    arguments = {**launch.arguments, **launch.constants}
    for i, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = arguments[name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = TYPES[value.dtype]
            if name not in unaligned:
                attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(launch.kernel, signature, constants, attributes)


def _said_of(cubin: bytes, option: str) -> str:
    """Text of cuobjdump from Triton's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, option, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _usage(text: str, name: str) -> dict[str, int]:
    """Read the resources of a kernel."""
    numbers = {
        k: int(v) for k, v in re.findall(r"(\w+):(\d+)", text.partition(f"Function {name}")[2])
    }
    if "REG" not in numbers:
        raise RuntimeError(f"cuobjdump says nothing of {name}: {text!r}")
    return {**numbers, "local": numbers.get("STACK", 0) + numbers.get("LOCAL", 0)}


def loop_loads(sass: str) -> dict[str, int]:
    """Count the loads from global memory in the smallest loop around a matrix instruction."""
    code = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\d\s+)?([A-Z]\S*)( 0x[0-9a-f]+)?", sass)
    lines = [(int(place, 16), name.rstrip(";"), to) for place, name, to in code]
    products = [place for place, name, _ in lines if name.startswith(("HGMMA", "HMMA"))]
    loops = [(int(to, 16), end) for end, name, to in lines if name.startswith("BRA") and to]
    around = [(a, b) for a, b in loops if any(a <= place <= b for place in products)]
    start, end = min(around, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    inside = [name for place, name, _ in lines if start <= place <= end]
    return dict(Counter(name for name in inside if re.match(r"LDG(STS)?\.", name)))
