"""compile_kernels(): instructions and registers of the Triton kernels, without a GPU."""

from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

from faigfast.backend.gpu import triton_support as _triton
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import markdown

CAPABILITIES = (80, 90)
HEAD = (
    "kernel, products, layer", "GPU", "tile", "warps, stages", "matrix instructions", "registers",
    "shared KB", "spills", "state",
)  # fmt: skip
STATE = "compiled, not yet run on a device"


@dataclass
class CompiledKernels:
    """Result of `compile_kernels`.

    Attributes
    ----------
    rows : list of dict
        kernel, mode, layer, capability, tile, warps, stages, instructions, registers, shared and
        local (bytes of a program, of a thread).
    """

    rows: list[dict[str, Any]]
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Write the rows as one Markdown table."""
        table_rows = [
            (
                f"{row['kernel']}, {row['mode']}, {row['layer']}", f"sm_{row['capability']}",
                row["tile"], f"{row['warps']}, {row['stages']}",
                ", ".join(f"{n} {name}" for name, n in row["instructions"].items()) or "none",
                str(row["registers"]), f"{row['shared'] / 1024:.0f}",
                f"{row['local']} bytes" if row["local"] else "none", STATE,
            )
            for row in self.rows
        ]  # fmt: skip
        version, oldest = _triton.version(), ".".join(map(str, _triton.OLDEST))
        return (
            f"The table describes the code that Triton {version} generates for the kernels. The "
            f"kernels support Triton {oldest} and later; another version may use a different "
            f"number of registers.\n\n{markdown(HEAD, table_rows)}\n\n"
            f"Triton {version} compiled the kernels, with torch {self.versions['torch']}. The tile "
            "of a forward pass or an input gradient is pixels × channels × depth. The tile of a "
            "weight gradient is outputs × channels × pixels. Registers and spills are counted per "
            "thread, shared memory per program. Matrix instructions are counted in the PTX; "
            "kernels in ieee mode use none, by design."
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


def compile_kernels(*, progress: bool = True) -> CompiledKernels:
    """Compile every Triton kernel with its first tile, in every mode, for sm_80 and sm_90.

    Raises
    ------
    ValueError
        If there is no usable Triton, or its interpreter is chosen.
    """
    why = _triton.missing() or ("TRITON_INTERPRET is 1" if _triton.interpreted() else "")
    if why:
        raise ValueError(f"there are no kernels to compile: {why}")
    from faigfast.kernels import aot, cases
    from faigfast.kernels.modes import STORED

    kernel_cases = cases.others()
    for mode in STORED:
        for shape in cases.SHAPES if mode == "fp16" else cases.SHAPES[:1]:
            kernel_cases += cases.first_tiles(mode, shape)
    rows = []
    for case in progress_bar(kernel_cases, unit="kernel", disable=not progress):
        launch = case.launch
        sides = [str(launch.arguments[side]) for side in "MNK" if "M" in launch.arguments]
        for capability in CAPABILITIES:
            compiled_kernel = aot.compiled(launch, capability)
            rows.append(
                {"kernel": launch.name, "mode": case.mode, "layer": case.shape,
                 "capability": capability, "tile": " × ".join(sides) or "–",
                 "warps": launch.warps, "stages": launch.stages, **asdict(compiled_kernel)}
            )  # fmt: skip
    return CompiledKernels(rows)
