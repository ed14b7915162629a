"""measure_gpu(): the kernels' share of a GPU's ceilings, beside torch's own kernels."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any, Protocol

import torch

from faigfast.backend.catalogue import backends
from faigfast.backend.precision import MATRIX, PRECISIONS, proper_float32
from faigfast.bench.layer import PASSES, ConvolutionLayer
from faigfast.bench.pointwise import pointwise_operations
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_gpu, describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import aligned

# Channels, height and width, points of the line.
LAYERS = ((64, 256, 8), (64, 48, 128), (128, 128, 8))
WHO = ("torch", "triton", "cuda")
KINDS = ("fp16", "bf16", "tf32", "bf16x3", "fp32")
# Precision → the backends that have it; every backend has the other precisions.
BACKENDS_OF_KIND = {"tf32": ("torch", "triton"), "bf16x3": ("triton",)}
# Largest relative L2 error of a pass against float64, from rounding operands and float32 sums.
BOUNDS = {"fp16": 5e-3, "bf16": 4e-2, "tf32": 5e-3, "bf16x3": 3e-5, "fp32": 1e-5}
REPEATS = 20
MATMUL = 8192  # rows and columns
COPY = 1 << 30  # bytes
HEADER = ("", "by", "kernel", "ms", "TFLOP/s", "of matmul", "GB/s", "of copy", "error")


@dataclass
class PassResult:
    """One pass by one backend.

    Attributes
    ----------
    what, who : str
        The pass with its size and type, and the backend.
    kernel : str
        Name of the kernel that ran.
    seconds : list of float
        Time of every repeat; empty where there is no speed.
    flops, bytes : int
        Work, and least bytes to read and write.
    error : float or None
        Relative L2 error against float64.
    reason : str
        Why there is no speed.
    """

    what: str
    who: str
    kernel: str = ""
    seconds: list[float] = field(default_factory=list)
    flops: int = 0
    bytes: int = 0
    error: float | None = None
    reason: str = ""


@dataclass
class GpuKernels:
    """Result of `measure_gpu`.

    Attributes
    ----------
    matmul, copy : float
        FLOP/s of a large matrix product in fp16; bytes a second of a copy, read and written.
    rows : list of PassResult
        In the order in which they were measured.
    """

    matmul: float
    copy: float
    rows: list[PassResult]
    machine: dict[str, Any]
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Align the rows as text, and say what the columns mean."""
        return joint_table([self])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "GpuKernels":
        """Rebuild the result from its saved JSON."""
        return cls(**{**saved, "rows": [PassResult(**row) for row in saved["rows"]]})

    def cells(self, row: PassResult) -> tuple[str, ...]:
        """Give the cells of a row; shares are of this process's ceilings."""
        error = "–" if row.error is None else f"{row.error:.1e}"
        if not row.seconds:
            return (row.what, row.who, row.kernel or "–", "no speed", *"––––", error)
        seconds = statistics.median(row.seconds)
        speed, rate = row.flops / seconds, row.bytes / seconds
        return (
            row.what,
            row.who,
            row.kernel,
            f"{seconds * 1e3:.3f}",
            f"{speed / 1e12:.1f}" if row.flops else "–",
            f"{speed / self.matmul:.0%}" if row.flops else "–",
            f"{rate / 1e9:.0f}",
            f"{rate / self.copy:.0%}",
            error,
        )


def joint_table(parts: Sequence[GpuKernels]) -> str:
    """Align the rows of several processes on one device, with equal passes together."""
    pairs = [(part, row) for part in parts for row in part.rows]
    order = list(dict.fromkeys(row.what for _, row in pairs))
    pairs.sort(key=lambda pair: order.index(pair[1].what))
    machine, versions = parts[0].machine, parts[0].versions
    ceilings = ", ".join(
        f"{part.matmul / 1e12:.0f} TFLOP/s and {part.copy / 1e9:.0f} GB/s" for part in parts
    )
    return "\n".join(
        [
            aligned(HEADER, [part.cells(row) for part, row in pairs]),
            *(f"  {who}: {reason}" for (who, reason) in _reasons(row for _, row in pairs)),
            f"{machine.get('gpu', machine['cpu'])}, torch {versions['torch']}",
            f"ceilings (fp16 matmul, copy) measured in each process: {ceilings}; ms: median of "
            f"{REPEATS};",
            "GB/s: of the bytes that must move; error: relative L2 against float64.",
        ]
    )


def _reasons(rows: Iterable[PassResult]) -> list[tuple[str, str]]:
    """Say why rows have no speed, one line for a backend and reason."""
    passes_by_reason: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.reason:
            passes_by_reason.setdefault((row.who, row.reason), []).append(row.what)
    return [
        (f"{who}, {passes[0]}" + (f" and {len(passes) - 1} more" if passes[1:] else ""), reason)
        for (who, reason), passes in passes_by_reason.items()
    ]


def measure_gpu(
    device: torch.device | str = "cuda",
    *,
    layers: Sequence[tuple[int, int, int]] = LAYERS,
    who: Sequence[str] = WHO,
    kinds: Sequence[str] = KINDS,
    passes: Sequence[str] = PASSES,
    pointwise: bool = True,
    matmul: int = MATMUL,
    copy: int = COPY,
    progress: bool = True,
    on_row: Callable[[GpuKernels], object] | None = None,
) -> GpuKernels:
    """Measure every pass of some layers, and pointwise operations, after comparing with float64.

    Parameters
    ----------
    device : torch.device or str
        The device to measure.
    layers : sequence of (int, int, int)
        Channels, height and width, points; all in the first of `kinds`, the first in all.
    kinds : sequence of str
        Precisions; only torch and triton have tf32, only triton has bf16x3.
    who : sequence of str
        "torch", "triton", "cuda", and "hopper": cuda with a kernel that is off by default.
    passes : sequence of str
        Of `faigfast.bench.layer.PASSES`.
    pointwise : bool
        Measure pointwise operations too.
    matmul, copy : int
        Rows of the matrices, and bytes of the copy, that measure the ceilings.
    on_row : callable, optional
        Called after every row with the result so far: a failed device fails for the rest of the
        process, and the remaining rows say so.
    """
    device = torch.device(device)
    with proper_float32():
        result = GpuKernels(
            _matmul_speed(matmul, device),
            _copy_rate(copy, device),
            [],
            describe_machine() | describe_gpu(device),
        )
        gpu_run = _GpuRun(result, device, on_row)
        layers_and_kinds = [
            (*layer, kind)
            for layer in layers
            for kind in (kinds if layer == layers[0] else kinds[:1])
        ]
        for channels, size, points, kind in progress_bar(
            layers_and_kinds, unit="layer", disable=not progress
        ):
            mode = kind if kind in MATRIX else "ieee"
            make = cache(
                partial(ConvolutionLayer, channels, size, points, device, PRECISIONS[kind], mode)
            )
            title = f"{channels} channels, {points}×{size}², {kind}"
            for part in passes:
                for name in who:
                    if _takes_part(name, part, kind):
                        make_pass = partial(_pass_of, make, part, kind)
                        gpu_run.row(f"{part}, {title}", name, make_pass, kind)
        for title, make_operation in pointwise_operations(device).items() if pointwise else ():
            make_once = cache(make_operation)
            for name in who:
                if name != "hopper":
                    gpu_run.row(title, name, make_once)
    return result


def _takes_part(who: str, part: str, kind: str) -> bool:
    if who == "hopper":
        return part == PASSES[0] and kind in ("fp16", "bf16")
    return who in BACKENDS_OF_KIND.get(kind, WHO)


class _Measurable(Protocol):
    """A pass of a layer, or a `faigfast.bench.pointwise.PointwiseOperation`."""

    @property
    def flops(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def bound(self) -> float: ...
    def kernel(self, backend: str) -> str: ...
    def error(self, backend: str) -> float: ...
    def run(self, backend: str) -> object: ...


@dataclass(frozen=True)
class _LayerPass:
    """One pass of a layer."""

    layer: ConvolutionLayer
    part: str
    bound: float

    @property
    def flops(self) -> int:
        return self.layer.flops

    @property
    def bytes(self) -> int:
        layer = self.layer
        moved_tensors = (
            layer.x,
            layer.y,
            layer.w0,
            layer.dw,
            *([layer.y] * (self.part != PASSES[0])),
        )
        return sum(part.numel() * part.element_size() for part in moved_tensors)

    def kernel(self, backend: str) -> str:
        return self.layer.kernel(self.part, backend)

    def error(self, backend: str) -> float:
        return self.layer.error(backend)

    def run(self, backend: str) -> object:
        return self.layer.run(self.part, backend)


def _pass_of(make: Callable[[], ConvolutionLayer], part: str, kind: str) -> _LayerPass:
    return _LayerPass(make(), part, BOUNDS[kind])


@dataclass
class _GpuRun:
    """One call of `measure_gpu`: measures row after row."""

    result: GpuKernels
    device: torch.device
    on_row: Callable[[GpuKernels], object] | None
    failed_row: str = ""  # the row in which the device failed

    def row(self, what: str, who: str, make: Callable[[], _Measurable], kind: str = "") -> None:
        """Add a row, with its speed or the reason why there is none."""
        row = PassResult(what, who)
        self.result.rows.append(row)
        backend = {"torch": "", "hopper": "cuda"}.get(who, who)
        if backend and not backends()[backend].available:
            row.reason = backends()[backend].reason
        elif self.failed_row:
            row.reason = f"not measured: the device failed in {self.failed_row}"
        else:
            rounding = _tf32() if (who, kind) == ("torch", "tf32") else nullcontext()
            with _hopper(who == "hopper"), rounding:
                self._measure(row, make, backend)
        if self.on_row is not None:
            self.on_row(self.result)

    def _measure(self, row: PassResult, make: Callable[[], _Measurable], backend: str) -> None:
        try:
            measurable = make()
            row.flops, row.bytes = measurable.flops, measurable.bytes
            row.kernel = measurable.kernel(backend)
            if backend and row.kernel == "plain":
                row.reason = "the backend leaves it to torch"
                return
            row.error = measurable.error(backend)
            if not row.error <= measurable.bound:
                row.reason = (
                    f"relative error {row.error:.1e}, over the bound of {measurable.bound:g}"
                )
                return
            row.seconds = timed(lambda: measurable.run(backend), self.device)
        except Exception as failure:  # the other rows go on, and this row says why
            row.reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
            if not works(self.device):
                self.failed_row = f"{row.what}, {row.who}"


def works(device: torch.device) -> bool:
    """Whether a device still works; after some errors it fails for the rest of the process."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as failure:
        return isinstance(failure, torch.OutOfMemoryError)
    return True


@contextmanager
def _hopper(wanted: bool) -> Iterator[None]:
    before = os.environ.pop("FAIGFAST_HOPPER", None)
    if wanted:
        os.environ["FAIGFAST_HOPPER"] = "1"
    try:
        yield
    finally:
        os.environ.pop("FAIGFAST_HOPPER", None)
        if before is not None:
            os.environ["FAIGFAST_HOPPER"] = before


@contextmanager
def _tf32() -> Iterator[None]:
    """Let cuDNN round to tf32, as the Triton kernels do in that precision."""
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    conv.fp32_precision = "tf32"
    try:
        yield
    finally:
        conv.fp32_precision = before


def timed(run: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> list[float]:
    """Seconds of each run, after three to warm up; by CUDA events on a GPU."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        return [_seconds(run) for _ in range(repeats)]
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize(device)
    for start, end in events:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _matmul_speed(rows: int, device: torch.device) -> float:
    # Zeros would run faster than random numbers.
    a, b = (torch.randn(rows, rows, device=device).half() for _ in range(2))
    return 2 * rows**3 / statistics.median(timed(lambda: a @ b, device))


def _copy_rate(size: int, device: torch.device) -> float:
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    destination = torch.empty_like(source)
    return 2 * size / statistics.median(timed(lambda: destination.copy_(source), device))
