"""measure_gpu(): how near the kernels come to what a GPU can do, beside torch's own."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from faigfast.backends import backends
from faigfast.bench.layer import PASSES, Layer
from faigfast.bench.pointwise import Subject, subjects
from faigfast.files import write_json
from faigfast.machine import describe_gpu, describe_machine, describe_versions
from faigfast.precision import PRECISIONS, proper_float32
from faigfast.tables import aligned

# Channels, height and width, points of the line.
LAYERS = ((64, 256, 8), (64, 48, 128), (128, 128, 8))
WHO = ("torch", "triton", "cuda")
KINDS = ("fp16", "bf16", "fp32")
# Relative L2 error of a pass against float64: rounding of operands, and of sums in float32.
BOUNDS = {"fp16": 5e-3, "bf16": 4e-2, "fp32": 1e-5}
REPEATS = 20
MATMUL = 8192  # rows and columns
COPY = 1 << 30  # bytes
HEADER = ("", "by", "kernel", "ms", "TFLOP/s", "of matmul", "GB/s", "of copy", "error")


@dataclass
class Row:
    """One pass by someone.

    Attributes
    ----------
    what, who : str
        The pass with its size and type, and the backend.
    kernel : str
        That served.
    seconds : list of float
        Of every repeat; empty where there is no speed.
    flops, bytes : int
        The work, and the fewest bytes that must be read and written.
    error : float or None
        Relative L2 against float64.
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
    """What `measure_gpu` found.

    Attributes
    ----------
    matmul, copy : float
        FLOP/s of a large matrix product in fp16, and bytes a second, read and written, of a copy.
    rows : list of Row
        In the order in which they were measured.
    """

    matmul: float
    copy: float
    rows: list[Row]
    machine: dict[str, Any]
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Align the rows as text, and say what the columns mean."""
        lines = [self._line(row) for row in self.rows]
        reasons = [f"  {row.what}, {row.who}: {row.reason}" for row in self.rows if row.reason]
        return "\n".join(
            [
                aligned(HEADER, lines),
                *reasons,
                f"{self.machine.get('gpu', self.machine['cpu'])}, torch {self.versions['torch']}",
                f"ceilings measured here: fp16 matmul {self.matmul / 1e12:.0f} TFLOP/s, copy "
                f"{self.copy / 1e9:.0f} GB/s; ms: median of {REPEATS}; GB/s: of the bytes that "
                "must move;",
                "error: relative L2 against float64.",
            ]
        )

    def _line(self, row: Row) -> tuple[str, ...]:
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


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
) -> GpuKernels:
    """Measure every pass of some layers, and what is pointwise, after comparing with float64.

    Parameters
    ----------
    device : torch.device or str
        Where.
    layers : sequence of (int, int, int)
        Channels, height and width, points; all in fp16, the first in all `kinds`.
    who : sequence of str
        "torch", "triton", "cuda", and "hopper": cuda with the kernel that is not taken by default.
    passes : sequence of str
        Of `faigfast.bench.layer.PASSES`.
    pointwise : bool
        Measure what is not a convolution too.
    matmul, copy : int
        Rows of the matrices, and bytes of the copy, of which the ceilings are measured.
    """
    device = torch.device(device)
    with proper_float32():
        found = GpuKernels(
            _matmul_speed(matmul, device),
            _copy_rate(copy, device),
            [],
            describe_machine() | describe_gpu(device),
        )
        todo = [
            (*layer, kind)
            for layer in layers
            for kind in (kinds if layer == layers[0] else kinds[:1])
        ]
        bar = tqdm(todo, unit="layer", disable=not progress)
        for channels, size, points, kind in bar:
            layer = Layer(channels, size, points, device, PRECISIONS[kind])
            title = f"{channels} channels, {points}×{size}², {kind}"
            for part in passes:
                for name in who:
                    if name != "hopper" or (part == PASSES[0] and kind != "fp32"):
                        found.rows.append(_layer_row(layer, f"{part}, {title}", part, name, kind))
        for subject in subjects(device) if pointwise else ():
            found.rows += [_row(subject, name) for name in who if name != "hopper"]
    return found


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


def _layer_row(layer: Layer, what: str, part: str, who: str, kind: str) -> Row:
    values = sum(t.numel() * t.element_size() for t in (layer.x, layer.y, layer.w0, layer.dw))
    gate = layer.y.numel() * layer.y.element_size() if part != PASSES[0] else 0
    backend = {"torch": "", "hopper": "cuda"}.get(who, who)
    with _hopper(who == "hopper"):
        return _measured(
            Row(what, who, flops=layer.flops, bytes=values + gate),
            backend,
            BOUNDS[kind],
            kernel=lambda: layer.kernel(part, backend),
            error=lambda: layer.error(backend),
            run=lambda: layer.run(part, backend),
            device=layer.x.device,
        )


def _row(subject: Subject, who: str) -> Row:
    backend = "" if who == "torch" else who
    return _measured(
        Row(subject.name, who, bytes=subject.bytes),
        backend,
        subject.bound,
        kernel=lambda: subject.kernel(backend),
        error=lambda: subject.error(backend),
        run=lambda: subject.run(backend),
        device=subject.device,
    )


def _measured(
    row: Row,
    backend: str,
    bound: float,
    kernel: Callable[[], str],
    error: Callable[[], float],
    run: Callable[[], object],
    device: torch.device,
) -> Row:
    """Fill a row, or say why it has no speed."""
    if backend and not backends()[backend].available:
        row.reason = backends()[backend].reason
        return row
    try:
        row.kernel = kernel()
        if backend and row.kernel == "plain":
            row.reason = "the backend leaves it to torch"
            return row
        row.error = error()
        if not row.error <= bound:
            row.reason = f"relative error {row.error:.1e}, over the bound of {bound:g}"
            return row
        row.seconds = timed(run, device)
    except Exception as failure:  # the others go on, and the row says why
        row.reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
    return row


def timed(run: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> list[float]:
    """Seconds of each of some runs, after three to warm up; by events where there are any."""
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
    # Zeros would run faster.
    a, b = (torch.randn(rows, rows, device=device).half() for _ in range(2))
    return 2 * rows**3 / statistics.median(timed(lambda: a @ b, device))


def _copy_rate(size: int, device: torch.device) -> float:
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    to = torch.empty_like(source)
    return 2 * size / statistics.median(timed(lambda: to.copy_(source), device))
